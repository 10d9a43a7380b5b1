"""Plays a run: one of its steps, or step after step until it is closed."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from cl_steps.errors import HeldForPerson, NothingToDo, NoUsableData, RejectedByGate, RetainError, StaleRun
from cl_steps.foreign import told
from cl_steps.formats.openlineage import observed
from cl_steps.ledger.events import FINAL, RunEvent
from cl_steps.pipeline import STAGES, STEPS, Step, next_step
from cl_steps.progress import say
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from cl_steps.repository.run_branch import RunState, read_run, run_id
from cl_steps.run.stage import run_stage
from cl_steps.run.stopping import asked_to_stop
from cl_steps.verify.judging import Judging

ENDINGS: dict[str, type[RetainError]] = {
    "no_update": NothingToDo,
    "held": HeldForPerson,
    "rejected": RejectedByGate,
    "stale": StaleRun,
}


def run_step(line: Line, run: str, name: str) -> str:
    """Run any step of a run, tell OpenLineage of it if anybody listens, and return in a few words how it ended."""
    chosen = STEPS[name]
    with observed(line, run, chosen):
        if chosen in STAGES:
            report = run_stage(line, run, chosen, load(chosen), Judging(line))
            return f"{report.verdict or report.status}. {report.why}".strip()
        return str(load(chosen)(line, run))


def load(chosen: Step) -> Any:
    """The function of a step; its module, heavy or not, is imported now."""
    module, _, name = chosen.function.partition(":")
    return getattr(import_module(module), name)


def new_id(command: str) -> str:
    """The id of a run that a command begins now."""
    moment = datetime.now(UTC)
    return run_id(f"{moment:%Y-%m-%d}", command, moment.isoformat(), str(os.getpid()))


def play(line: Line, run: str, until: str | None = None, no_promote: bool = False) -> str | None:
    """Step after step; returns a sentence where it stopped before the end because it was asked to.

    Whatever goes wrong, the run is closed as failed: it must not seem to be under way for ever.
    """
    try:
        while (name := next_step(read_run(line, run).reports)) != "close":
            if name == "promote" and no_promote:
                return f"run {run} waits before its promotion; `retain night --run {run}` goes on"
            say(f"{name}: {run_step(line, run, name)}")
            if name == until:
                return f"run {run} stopped after {name}; `retain night --run {run}` goes on"
            if name == "promote":
                break
    except StaleRun:
        pass
    except Exception:
        _close_failed(line, run)
        raise
    run_step(line, run, "close")
    return None


def _close_failed(line: Line, run: str) -> None:
    """Close a run after an error, which nothing here may hide; not where SIGTERM was the cause of it."""
    if asked_to_stop():
        return
    try:
        run_step(line, run, "close")
    except Exception as error:
        say(f"close: {told(error, 'night')}")


def ending(line: Line, run: str, folder: str) -> str:
    """Write the line's page and say how a run ended; raises as `night` does where it made no version."""
    from cl_steps.operations.page import write_report

    page = write_report(line, Path(folder) / "reports")
    event = run_events(line)[run]
    sentence = f"run {run} ended {event.outcome}: {event.why} (page: {page})"
    if event.outcome not in FINAL or event.outcome == "promoted":
        return f"run {run}: {event.version}. {event.why} (page: {page})"
    if _nothing_usable(read_run(line, run)):
        raise NoUsableData(sentence)
    raise ENDINGS[event.outcome](sentence)


def _nothing_usable(state: RunState) -> bool:
    figures = state.figures("ingest")
    return bool(figures.get("quarantined")) and not figures.get("batch", {}).get("assets")


def run_events(line: Line) -> dict[str, RunEvent]:
    """How every run ended, by run id."""
    with reading(line.git) as main:
        return main.ledger().runs
