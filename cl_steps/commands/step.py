"""`retain step`: one step, as a container runs it; without a workspace URL on the checkout in this folder."""

from __future__ import annotations

from pathlib import Path

from cl_steps.errors import UsageError
from cl_steps.operations.play import load, run_step
from cl_steps.pipeline import STAGES, STEPS, Step
from cl_steps.progress import say
from cl_steps.repository.line import resolve
from cl_steps.run.context import Context
from cl_steps.run.stage import run_in_place


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


def _in_place(chosen: Step) -> None:
    if chosen not in STAGES:
        raise UsageError(f"{chosen.name} changes main and needs --workspace and --run")
    run_in_place(Context.of(Path.cwd()), chosen, load(chosen))
