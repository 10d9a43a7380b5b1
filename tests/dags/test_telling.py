"""Metrics and notifiers: what is counted, who is told of what, and that nobody's mail server ends a run."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import BaseNotifier
from airflow.sdk.observability import stats

from cl_steps.errors import UsageError
from cl_steps.ledger.events import RunEvent, event_bytes, event_path
from cl_steps.ledger.fold import fold
from cl_steps.orchestration.light import gpu_hours_since
from cl_steps.orchestration.pods.profiles import Notify
from cl_steps.orchestration.registry import Entry
from cl_steps.orchestration.telling import hours_overdue, measure, notifiers, pending_assets, stored_bytes, tell
from cl_steps.repository.mainline import Change, reading
from tests.dags.conftest import make_line
from tests.lasting import MD5 as NONE
from tests.lasting import whole_event, whole_record

HERE = "tests.dags.test_telling"
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
TOLD: list[str] = []


class Pigeon(BaseNotifier):
    """Keeps what it is given."""

    template_fields = ("text",)

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.text = text

    def notify(self, context: Any) -> None:
        TOLD.append(self.text)


class Dead(BaseNotifier):
    """A mail server that is away."""

    def _update_context(self, context: Any) -> Any:
        raise OSError("no route to host")


def entry(*notify: Notify, **facts: Any) -> Entry:
    return Entry(name="a", workspace="/w", notify=notify, **facts)


def run(number: int, outcome: str, at: datetime, **facts: Any) -> RunEvent:
    intake = {"md5": NONE, "assets": 10 * number, "quarantine_keys": []}
    batch = {"runs": [f"r{number}"], "digest": "0"}
    said = {"schema": 1, "kind": "run", "run": f"r{number}", "outcome": outcome, "at": at.isoformat(), "batch": batch}
    return RunEvent.from_document(whole_event({**said, "intake": intake, "seconds": 5.0, **facts}))


def test_those_are_told_who_asked_for_it_and_templates_know_the_run() -> None:
    TOLD.clear()
    text = "{{ retain.line }}: {{ retain.why }}"
    line = entry(
        Notify(of=("held",), notifier=f"{HERE}.Dead"),
        Notify(of=("held", "promoted"), notifier=f"{HERE}.Pigeon", arguments={"text": text}),
        Notify(of=("failed",), notifier=f"{HERE}.Pigeon", arguments={"text": "red"}),
    )  # fmt: skip
    tell(line, "held", {"why": "{{ 7 * 7 }}"}, {})
    assert TOLD == ["a: {{ 7 * 7 }}"]


@pytest.mark.parametrize("name", ["nowhere.at.all.Mail", f"{HERE}.Missing", "pathlib.Path"])
def test_what_is_no_notifier_is_said_in_one_sentence(name: str) -> None:
    with pytest.raises(UsageError, match=r"lines\.yaml"):
        list(notifiers(entry(Notify(notifier=name)), "failed"))


def test_a_run_is_counted_and_the_line_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line, found = make_line(tmp_path), {}
    for kind in ("incr", "timing", "gauge"):
        monkeypatch.setattr(stats, kind, lambda name, value=1, tags=None: found.update({name: (value, tags)}))
    event = run(1, "no_update", NOW, gpu_seconds=61.4)
    sizes = {"state/base.dvc": ("a", 100), "state/adapter.dvc": ("b", 20), "data/r1.dvc": ("b", 20)}
    files = {
        path: f"outs:\n- md5: {letter * 32}.dir\n  size: {size}\n  hash: md5\n  path: x\n".encode()
        for path, (letter, size) in sizes.items()
    }
    with reading(line.git) as main:
        main.swap(lambda: Change(files, "some state"))
        assert stored_bytes(main) == 120
        measure(entry(), event, main.ledger(), main)
    assert found["retain.runs"] == (1, {"line": "a", "outcome": "no_update"})
    assert found["retain.run_seconds"][0] == timedelta(seconds=5)
    assert (found["retain.gpu_seconds"][0], found["retain.stored_bytes"][0]) == (61, 120)


def test_what_waits_is_counted_in_assets() -> None:
    ledger = fold([run(1, "no_update", NOW), run(2, "promoted", NOW, version="v2"), run(3, "failed", NOW)])
    assert pending_assets(ledger, 3) == 10 + 30


def finished(*hours: float) -> Any:
    """A main whose runs ended so many hours ago."""
    return SimpleNamespace(last_finished=lambda: NOW - timedelta(hours=min(hours)))


def test_the_alarm_is_raised_where_no_run_finished_for_too_long() -> None:
    assert hours_overdue(finished(25), entry(), NOW) is None
    assert hours_overdue(finished(27, 60), entry(), NOW) == pytest.approx(27)
    assert hours_overdue(finished(27), entry(overdue_hours=30.0), NOW) is None
    assert hours_overdue(finished(99), entry(schedule=None), NOW) is None
    assert hours_overdue(finished(99), entry(overdue_hours=None), NOW) is None


def test_a_run_that_failed_has_not_finished_and_before_the_first_one_v1_counts(tmp_path: Path) -> None:
    line = make_line(tmp_path)
    with reading(line.git) as main:
        with pytest.raises(UsageError, match="no version"):
            main.last_finished()
        record = {"version": "v1", "created": (NOW - timedelta(hours=60)).isoformat()}
        assert main.push(Change({"versions/v0001.json": json.dumps(whole_record(record)).encode()}, "v1"))
        for hours, outcome, expected in ((50, "failed", 60), (40, "no_update", 40), (3, "failed", 40)):
            at = NOW - timedelta(hours=hours)
            change = Change({event_path("run", "r", at): event_bytes(run(hours, outcome, at))}, "a run")
            assert main.push(change)
            assert NOW - main.last_finished() == timedelta(hours=expected)


def test_gpu_hours_are_those_of_the_last_days() -> None:
    ledger = fold([
        run(1, "promoted", NOW - timedelta(days=40), version="v2", gpu_seconds=7200),
        run(2, "rejected", NOW - timedelta(days=3), gpu_seconds=5400),
        run(3, "failed", NOW - timedelta(days=1)),
    ])  # fmt: skip
    assert gpu_hours_since(ledger, NOW - timedelta(days=30)) == pytest.approx(1.5)
