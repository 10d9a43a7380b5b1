"""`retain night`: one whole run here and now, without Airflow; with `--offline` without any network."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from cl_steps.config import RunSpec, parse_overrides, validate_block
from cl_steps.errors import (
    UsageError,
)
from cl_steps.formats.openlineage import OFFLINE
from cl_steps.operations.play import ending, new_id, play
from cl_steps.progress import say
from cl_steps.records.builders import person
from cl_steps.repository.checkout import refuse_dirty, sync
from cl_steps.repository.line import Line, resolve
from cl_steps.repository.run_branch import open_run, read_run
from cl_steps.run.stopping import goes_on_with


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


def _cut_network(line: Line) -> None:
    remote = [url for url in (line.git, line.store, line.landing) if "://" in url]
    if remote:
        raise UsageError(f"--offline needs a line that lives on this machine, and {remote[0]} does not")
    os.environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1", OFFLINE: "1"})
