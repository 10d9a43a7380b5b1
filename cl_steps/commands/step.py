"""`retain step`: one step, as a container runs it; without a workspace URL on the checkout in this folder."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from cl_steps.errors import UsageError
from cl_steps.formats.openlineage import observed
from cl_steps.pipeline import STAGES, STEPS, Step
from cl_steps.progress import say
from cl_steps.repository.line import Line, resolve
from cl_steps.run.context import Context
from cl_steps.run.stage import run_in_place, run_stage
from cl_steps.verify.judging import Judging


def step(name: str, workspace: str | None, run: str | None) -> None:
    """Run step `name`.

    Raises:
        UsageError: an unknown step or half an address.
    """
    if name not in STEPS:
        raise UsageError(f"there is no step {name!r}; the steps are {', '.join(STEPS)}")
    if (workspace is None) != (run is None):
        raise UsageError(
            "--workspace and --run go together; without both the step runs on the workspace in this folder"
        )
    if workspace is None or run is None:
        _in_place(STEPS[name])
    else:
        say(f"{name}: {run_step(resolve(workspace), run, name)}")


def run_step(line: Line, run: str, name: str) -> str:
    """Run any step of a run, tell OpenLineage of it if anybody listens, and return in a few words how it ended."""
    chosen = STEPS[name]
    with observed(line, run, chosen):
        if chosen in STAGES:
            report = run_stage(line, run, chosen, load(chosen), Judging(line))
            return f"{report['verdict'] or report['status']}. {report['why']}".strip()
        return str(load(chosen)(line, run))


def load(chosen: Step) -> Any:
    """The function of a step; its module, heavy or not, is imported now."""
    module, _, name = chosen.function.partition(":")
    return getattr(import_module(module), name)


def _in_place(chosen: Step) -> None:
    if chosen not in STAGES:
        raise UsageError(f"{chosen.name} changes main and needs --workspace and --run")
    run_in_place(Context.of(Path.cwd()), chosen, load(chosen))
