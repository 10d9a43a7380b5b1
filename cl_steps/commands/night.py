"""`retain night`: one whole run here and now, without Airflow; with `--offline` without any network."""

from __future__ import annotations

import getpass
import os
import shlex
from datetime import UTC, datetime
from pathlib import Path

from cl_steps.commands.step import run_step
from cl_steps.config import RunSpec, parse_overrides, validate_block
from cl_steps.errors import (
    HeldForPerson,
    NothingToDo,
    NoUsableData,
    RejectedByGate,
    RetainError,
    StaleRun,
    UsageError,
)
from cl_steps.foreign import told
from cl_steps.formats.openlineage import OFFLINE
from cl_steps.ledger.fold import FINAL
from cl_steps.pipeline import next_step
from cl_steps.progress import say
from cl_steps.repository.checkout import refuse_dirty, sync
from cl_steps.repository.line import Line, resolve
from cl_steps.repository.run_branch import RunState, open_run, read_run, run_id
from cl_steps.run.stopping import asked_to_stop, goes_on_with

ENDINGS: dict[str, type[RetainError]] = {
    "no_update": NothingToDo,
    "held": HeldForPerson,
    "rejected": RejectedByGate,
    "stale": StaleRun,
}


def night(
    dir: str,
    until: str | None,
    set: list[str],
    batch: str | None,
    force: bool,
    reason: str,
    run: str | None,
    no_promote: bool,
    offline: bool,
) -> str:
    """Run the pipeline to its end, or up to a step, and say how it ended.

    Raises:
        NothingToDo, HeldForPerson, RejectedByGate, StaleRun: how a run ends without a new version.
        RetainError: what went wrong; the run is recorded as failed and can be gone on with.
    """
    line = resolve(dir)
    if offline:
        _cut_network(line)
    refuse_dirty(Path(dir), line)
    spec = read_run(line, run).spec if run else _new_run(line, parse_overrides(set), batch, force, reason)
    say(f"run {spec.id}")
    flags = [*(["--no-promote"] if no_promote else []), *(["--offline"] if offline else [])]
    with goes_on_with(shlex.join(["retain", "night", dir, "--run", spec.id, *flags])):
        ended = play(line, spec.id, until, no_promote)
        sync(Path(dir), line)
        return ended or ending(line, spec.id, dir)


def _new_run(line: Line, overrides: dict[str, object], batch: str | None, force: bool, reason: str) -> RunSpec:
    facts = {"id": new_id("night"), "by": person(), "reason": reason, "batch": batch, "force": force, "set": overrides}
    return open_run(line, validate_block(RunSpec, facts, "the command"))


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
    from cl_steps.commands.report import write_report
    from cl_steps.commands.status import run_events

    page = write_report(line, Path(folder) / "reports")
    event = run_events(line)[run]
    sentence = f"run {run} ended {event['outcome']}: {event['why']} (page: {page})"
    if event["outcome"] not in FINAL or event["outcome"] == "promoted":
        return f"run {run}: {event['version']}. {event['why']} (page: {page})"
    if _nothing_usable(read_run(line, run)):
        raise NoUsableData(sentence)
    raise ENDINGS[event["outcome"]](sentence)


def _nothing_usable(state: RunState) -> bool:
    figures = state.reports.get("ingest", {}).get("figures", {})
    return bool(figures.get("quarantined")) and not figures.get("batch", {}).get("assets")


def _cut_network(line: Line) -> None:
    remote = [url for url in (line.git, line.store, line.landing) if "://" in url]
    if remote:
        raise UsageError(f"--offline needs a line that lives on this machine, and {remote[0]} does not")
    os.environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1", OFFLINE: "1"})


def person() -> str:
    """Who started this process, as far as it can be known without authentication."""
    try:
        return f"{getpass.getuser()} (claimed)"
    except (KeyError, OSError):
        return "unknown (claimed)"
