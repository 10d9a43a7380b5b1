"""What a run's event and its intake say, by what its branch says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from cl_steps.config import RunSpec
from cl_steps.records.builders import intake_file, now, run_event
from tests.lasting import MD5

LOCK = {"ingest": {"outs": [{"path": "tonight/intake", "md5": f"{MD5}.dir", "nfiles": 3}]}}
TOOK = {"intake": {"assets": 3, "slices": {"old": 3}}, "batch": {"runs": ["r-1"], "assets": 3, "digest": "d"}}


def state(ingest: dict[str, Any], lock: dict[str, Any], **spec: Any) -> Any:
    figures = lambda step: ingest if step == "ingest" else {}  # noqa: E731  a run's branch, as far as it is asked
    return SimpleNamespace(
        spec=RunSpec(id="r-1", **{"started": now(), **spec}),
        lock=lock,
        tip="t",
        times={},
        figures=figures,
        verdict=lambda _: None,
    )


@pytest.mark.parametrize(
    ("ingest", "is_kept"),
    [
        (TOOK, True),
        ({"intake": {"assets": 0}, "quarantined": 2}, True),
        ({"quarantined": 2}, True),
        ({"intake": {"assets": 0}, "quarantined": 0}, False),
        ({}, False),
    ],
)
def test_what_was_taken_in_or_set_aside_is_kept(ingest: dict[str, Any], is_kept: bool) -> None:
    assert list(intake_file(state(ingest, LOCK))) == (["data/r-1.dvc"] if is_kept else [])
    assert intake_file(state(ingest, {})) == {}


def test_the_event_says_what_came_in_and_whose_batch_it_was() -> None:
    event = run_event(state({**TOOK, "quarantined": 1, "quarantine_keys": ["k"]}, LOCK, batch="r-0"), "held", "unsure")
    assert event.intake is not None
    assert event.intake.document() == {
        "md5": f"{MD5}.dir", "quarantined": 1, "quarantine_keys": ["k"], "assets": 3, "slices": {"old": 3},
    }  # fmt: skip
    assert event.batch is not None
    assert (event.batch.runs, event.batch.of) == (("r-1",), "r-0")
    broken_off = run_event(state({}, LOCK), "failed", "no disk")
    assert broken_off.batch is None
    assert broken_off.intake is not None
    assert (broken_off.intake.assets, broken_off.intake.quarantined) == (0, 0)
    assert run_event(state({}, {}), "failed", "no network").intake is None


@pytest.mark.parametrize(("hours", "seconds"), [(2, 7200), (-2, 0)])
def test_a_run_takes_the_seconds_since_it_began_and_never_less_than_none(hours: int, seconds: int) -> None:
    started = now(datetime.now(UTC) - timedelta(hours=hours))
    event = run_event(state({}, {}, started=started), "failed", "no disk")
    assert event.seconds == pytest.approx(seconds, abs=60)
    assert event.seconds >= 0
