"""Machines whose clocks are behind or ahead: what they write is what `retain verify` and every later night take."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from cl_steps.acts.rollback import roll_back
from cl_steps.commands.answer import refuse
from cl_steps.config import RunSpec
from cl_steps.documents import json_text
from cl_steps.errors import IntegrityError, RetainError, UsageError
from cl_steps.ledger.events import event_moment
from cl_steps.ledger.reports import read_reports
from cl_steps.ledger.times import add_time, read_times
from cl_steps.pipeline import STAGES
from cl_steps.repository.git import git
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Change, reading
from cl_steps.repository.run_branch import open_run
from cl_steps.run.stage import run_stage
from cl_steps.steps import close, promote
from cl_steps.verify.authenticity import Trust
from cl_steps.verify.before_loading import check_record
from cl_steps.verify.judged import doubt_of
from cl_steps.verify.judging import Judging
from cl_steps.verify.verification import verify
from tests.lasting import documents
from tests.lines.small import GOOD, fake_stage, make_workspace
from tests.promoting import SAME, play, stage


@contextmanager
def clock(**shift: int) -> Iterator[None]:
    """A machine whose clock is so far ahead; the process has one clock, whoever asks it."""

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(**shift)

    modules = ("records.builders", "ledger.events", "repository.mainline", "repository.run_branch")
    patches = [patch(f"cl_steps.{module}.datetime", Shifted) for module in modules]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    monkeypatch.setattr(promote, "_check_figures", lambda *_: None)
    line = make_workspace(tmp_path / "line", signed=True)
    night(line, "r-1")
    return line


def night(line: Line, run: str) -> str:
    play(line, run)
    version = promote.run(line, run)
    assert close.run(line, run) == "promoted"
    return version


def faults(line: Line) -> list[str]:
    return [
        f"{found.where}: {found.why}"
        for found in verify(line, None, Trust.read(line.trusted_keys)).findings
        if found.fault
    ]


@pytest.mark.parametrize("hours", [-24 * 400, -24, -1, 24])
def test_a_promotion_by_another_clock(line: Line, hours: int) -> None:
    play(line, "r-2")
    with clock(hours=hours):
        assert promote.run(line, "r-2") == "v3"
        close.run(line, "r-2")
    assert faults(line) == []
    assert night(line, "r-3") == "v4"
    assert faults(line) == []
    trust = Trust.read(line.trusted_keys)
    with reading(line.git) as main:
        records = {record["version"]: check_record(main, record["version"], trust) for record in documents(main)}
        assert main.ledger().runs["r-2"].seconds >= 0
    created = [datetime.fromisoformat(records[name].created) for name in ("v1", "v2", "v3", "v4")]
    assert created == sorted(created)
    assert records["v3"].seconds >= 0


def test_acts_by_another_clock_come_after_what_was_there(line: Line) -> None:
    """Events are read in the order of their names: a rollback must not be read before what it rolls back."""
    play(line, "r-2", verdict="inconclusive")
    close.run(line, "r-2")
    folder = str(Path(line.landing).parent)
    with clock(hours=-30):
        refuse("r-2", "no", "ops", "command line", folder)
        roll_back(line, "v1", "worse", False, "ops", "command line")
        play(line, "r-3", verdict="inconclusive")
        close.run(line, "r-3")
    with reading(line.git) as main:
        names = [name for name in main.folder_files("events") if name.endswith(".json")]
        assert [name.split("-", 2)[1] for name in names] == ["run", "run", "answer", "rollback", "run"]
        assert main.ledger().intakes["r-1"].status == "set_aside"
    assert faults(line) == []


def test_a_moment_is_after_all_that_main_says(line: Line) -> None:
    with reading(line.git) as main:
        latest = max(filter(None, map(event_moment, main.folder_files("events"))))
        with clock(days=-3):
            assert main.moment() == latest + timedelta(microseconds=1)
        assert main.moment() > latest + timedelta(microseconds=1)


def test_a_key_does_not_sign_when_it_would_not_count(line: Line) -> None:
    """It counts from two days on, by the clock of the machine on which it was made."""
    with reading(line.git) as main:
        before = main.tip
    keys = yaml.safe_load(Path(line.trusted_keys).read_text())
    for key in keys["keys"]:
        key["from"] = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    Path(line.trusted_keys).write_text(yaml.safe_dump(keys))
    with pytest.raises(UsageError, match="clock"):
        roll_back(line, "v1", "worse", False, "ops", "command line")
    with reading(line.git) as main:
        assert main.tip == before


def test_a_judge_counts_at_the_moment_that_main_records_whatever_the_clock_of_who_asks(line: Line) -> None:
    """Main is days ahead of this machine, and the judge's key ended between the two: verify would ask main's moment."""
    play(line, "r-2")
    end_judge(line, datetime.now(UTC) + timedelta(hours=1))
    main_is_ahead(line)
    with pytest.raises(IntegrityError, match=r"retain-judge-1 counts from .* until .*; clear gate"):
        promote.run(line, "r-2")
    assert close.run(line, "r-2") == "failed"
    assert faults(line) == []


def test_a_judge_whose_key_is_younger_than_this_machines_clock_counts(line: Line) -> None:
    """The keys were made, and main went on, by a clock that is two days ahead of ours."""
    main_is_ahead(line)
    document = yaml.safe_load(Path(line.trusted_keys).read_text())
    judge = next(key for key in document["keys"] if key["role"] == "judge")
    judge["from"] = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    Path(line.trusted_keys).write_text(yaml.safe_dump(document))
    assert night(line, "r-2") == "v3"
    with reading(line.git) as main:
        assert [doubt_of(trust_in(line), main.records()[-1], name) for name in ("evaluate", "gate")] == [None, None]


def test_a_key_that_ends_while_its_run_is_promoted_does_not_count(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look was before the end of the key, and the record is made after it."""
    play(line, "r-2")
    monkeypatch.setattr(promote, "check_judged", lambda *_, **__: None)
    end_judge(line, datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(IntegrityError, match="what gate found in run r-2 does not count"):
        promote.run(line, "r-2")


def test_a_run_that_nobody_closed_is_closed_with_the_next_and_may_still_be_gone_on_with(line: Line) -> None:
    """As Airflow leaves one that took longer than a run may: its steps ended, and its `close` was skipped."""
    open_run(line, RunSpec(id="r-lost"))
    for step in STAGES[:2]:
        run_stage(line, "r-lost", step, fake_stage(step, GOOD[step.name]))
    assert close_of_another(line, "r-5", days=7) == {"r-1", "r-5"}
    assert close_of_another(line, "r-6", days=9) == {"r-1", "r-5", "r-6", "r-lost"}
    with reading(line.git) as main:
        event = main.ledger().runs["r-lost"]
    assert (event.outcome, event.intake.assets) == ("failed", 20)
    words = (
        r"nobody closed it, and nothing came from it since 20..-..-..: it stopped after drift: see the log of the step"
    )
    assert re.match(words, event.why)
    assert faults(line) == []
    for step in STAGES[2:]:
        verdict = "reject" if step.name == "gate" else None
        run_stage(line, "r-lost", step, stage(step, verdict, SAME), Judging(line))
    assert close.run(line, "r-lost") == "rejected"


def test_a_run_that_cannot_be_read_holds_no_other_ones_close_up(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    open_run(line, RunSpec(id="r-lost"))
    git(Path(line.git), "update-ref", "-d", "refs/heads/runs/r-lost")
    assert close_of_another(line, "r-6", days=9) == {"r-1", "r-6"}
    assert "run r-lost stays open: there is no run 'r-lost'" in capsys.readouterr().err


def close_of_another(line: Line, run: str, days: int) -> set[str]:
    """The runs that have an end once another one was closed so many days later."""
    with clock(days=days):
        open_run(line, RunSpec(id=run))
        assert close.run(line, run) == "failed"
    with reading(line.git) as main:
        return set(main.ledger().runs)


def main_is_ahead(line: Line) -> None:
    """A run that another machine opened and closed, whose clock is two days ahead."""
    with clock(days=2):
        open_run(line, RunSpec(id="r-0"))
        assert close.run(line, "r-0") == "failed"


def end_judge(line: Line, until: datetime) -> None:
    document = yaml.safe_load(Path(line.trusted_keys).read_text())
    judge = next(key for key in document["keys"] if key["role"] == "judge")
    Path(line.trusted_keys).write_text(
        yaml.safe_dump(
            {"keys": [key for key in document["keys"] if key is not judge] + [{**judge, "until": until.isoformat()}]}
        )
    )


def trust_in(line: Line) -> Trust:
    trust = Trust.read(line.trusted_keys)
    assert trust
    return trust


PRUNED = {
    "schema": 2,
    "kind": "prune",
    "at": "2026-01-01T00:00:00+00:00",
    "runs": {},
    "by": "x",
    "through": "x",
    "days": 1,
}
BROKEN: dict[str, Any] = {
    "events/20990101T000000000000Z-run-x.json": {"schema": 2, "kind": "run", "run": "x", "at": "yesterday"},
    "events/20990101T000000000001Z-rollback-x.json": {"schema": 2, "kind": "rollback"},
    "versions/v0007.json": {"schema": 2, "version": "v7", "seconds": -3598.1},
    "state/champion.json": {"version": "7", "seed_plan": 1, "slices": [], "anchors": {}},
}


@pytest.mark.parametrize("path", BROKEN)
def test_what_verify_refuses_is_never_written(line: Line, path: str) -> None:
    with reading(line.git) as main:
        before = main.tip
        change = Change({"data/x.dvc": b"x", path: json_text(BROKEN[path]).encode()}, "broken")
        with pytest.raises(RetainError, match="nothing was written") as caught:
            main.swap(lambda: change)
        assert path in str(caught.value)
        main.refresh()
        assert main.tip == before


def test_a_record_or_an_event_under_another_name_is_never_written(line: Line) -> None:
    with reading(line.git) as main:
        record = main.read("versions/v0002.json") or b""
        event = {**PRUNED, "id": "another"}
        for path, content in (
            ("versions/v0003.json", record),
            ("events/20990101T000000000000Z-prune-x.json", json_text(event).encode()),
        ):
            with pytest.raises(RetainError, match="it says that it is"):
                main.swap(lambda path=path, content=content: Change({path: content}, "x"))  # type: ignore[misc]


def test_an_event_that_would_be_read_before_others_is_never_written(line: Line) -> None:
    with reading(line.git) as main:
        path = "events/20200101T000000000000Z-prune-x.json"
        event = {**PRUNED, "id": Path(path).stem}
        with pytest.raises(RetainError, match="before older events"):
            main.swap(lambda: Change({path: json_text(event).encode()}, "x"))


@pytest.mark.parametrize("report", ['{"a": ', "[" * 100_000, "[]", '{"schema": 1}', '{"schema": 1, "step": NaN}'])
def test_a_report_that_is_none_is_one_sentence(tmp_path: Path, report: str) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "gate.json").write_text(report)
    with pytest.raises(IntegrityError, match=r"reports/gate.json .*: trigger a new run"):
        read_reports(tmp_path)


def test_times_are_never_negative(tmp_path: Path) -> None:
    add_time(tmp_path, "update", -3.0, {"device": "cuda"})
    add_time(tmp_path, "update", 2.0, {"device": "cuda"}, 2)
    assert read_times(tmp_path)["update"] == {"seconds": 2.0, "device": "cuda", "processes": 2, "gpu_seconds": 4.0}
    (tmp_path / "reports" / "times.json").write_text(json.dumps({"update": {"seconds": 1, "gpu_seconds": -9}}))
    with pytest.raises(RetainError, match="does not say what 'update' took"):
        read_times(tmp_path)
