"""A person's answer: what it starts, and what it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

import cl_steps.steps.promote
from cl_steps.commands.answer import approve, refuse
from cl_steps.config import RunSpec
from cl_steps.errors import StaleRun, UsageError
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from cl_steps.repository.run_branch import open_run
from cl_steps.steps import close
from tests.lasting import documents
from tests.lines.small import GOOD, play

ALARMING: dict[str, str | None] = {"ingest": "ok", "drift": "alarming"}
UNSURE: dict[str, str | None] = {**GOOD, "gate": "inconclusive"}


@pytest.fixture(autouse=True)
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cl_steps.steps.promote, "_check_figures", lambda root, params, verdict, run: None)


def held(line: Line, run: str, verdicts: dict[str, str | None]) -> str:
    play(line, run, verdicts)
    assert close.run(line, run) == "held"
    return str(Path(line.git).parents[1])


def test_yes_to_an_alarm_makes_the_next_run_learn_exactly_that_batch(line: Line) -> None:
    folder = held(line, "r-1", ALARMING)
    assert open_run(line, RunSpec(id="r-2")).batch is None
    assert "the next night" in approve("r-1", "seen it", "ops", "command line", folder)
    assert open_run(line, RunSpec(id="r-3")).batch == "r-1"


def test_no_leaves_it_set_aside(line: Line) -> None:
    folder = held(line, "r-1", ALARMING)
    refuse("r-1", "poison", "ops", "command line", folder)
    assert open_run(line, RunSpec(id="r-2")).batch is None
    with reading(line.git) as main:
        assert main.ledger().intakes["r-1"].status == "set_aside"


def test_yes_to_an_unsure_gate_promotes_that_candidate_and_the_record_says_who(line: Line) -> None:
    folder = held(line, "r-1", UNSURE)
    assert "v2" in approve("r-1", "looks right", "ops", "command line", folder)
    with reading(line.git) as main:
        assert documents(main)[-1]["approval"]["by"] == "ops"
        assert main.ledger().outcome("r-1") == "promoted"
        assert main.ledger().intakes["r-1"].status == "learnt"


def test_yes_comes_too_late_where_the_champion_changed(line: Line) -> None:
    folder = held(line, "r-1", UNSURE)
    play(line, "r-2", GOOD)
    cl_steps.steps.promote.run(line, "r-2")
    with pytest.raises(StaleRun):
        approve("r-1", "looks right", "ops", "command line", folder)


def test_only_a_held_run_can_be_answered(line: Line) -> None:
    play(line, "r-1", GOOD)
    with pytest.raises(UsageError, match="not held"):
        approve("r-1", "please", "ops", "command line", str(Path(line.git).parents[1]))
