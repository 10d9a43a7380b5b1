"""`retain rebase`: a new base is put under the line, by a run that is gated and promoted like any other.

The base is checked as `retain init` checks it, its bytes are stored, the person's act is recorded on main, and then the
pipeline plays: an empty adapter on the new base learns the replay buffer, and champion and anchors are measured on the
old base beside it. Nothing is taken in.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from tempfile import TemporaryDirectory

from cl_steps.acts.rebase import RebaseRequest, ask, refuse_same
from cl_steps.config import RunSpec, parse_overrides, validate_block
from cl_steps.errors import UsageError
from cl_steps.operations.base import open_base, take_base
from cl_steps.operations.play import ending, new_id, play
from cl_steps.progress import say
from cl_steps.records.builders import person
from cl_steps.repository.beginning import refuse_own_rules
from cl_steps.repository.checkout import refuse_dirty, sync
from cl_steps.repository.line import Line, resolve
from cl_steps.repository.mainline import reading
from cl_steps.repository.run_branch import open_run
from cl_steps.run.stopping import goes_on_with


def rebase(base: str, dir: str, reason: str, like: str | None, set: list[str], no_promote: bool) -> str:
    """Try a new base and say how it ended.

    Raises:
        UsageError: no reason; the base is none, or the line's own; or the line's adapter cannot sit on it.
        Unavailable: a remote or the hub cannot be reached.
        HeldForPerson, RejectedByGate, StaleRun: how the run ends without a new version.
        RetainError: what went wrong in the run, which `retain night --run` goes on with.
    """
    if not reason.strip():
        raise UsageError('a new base needs a reason: --reason "..."')
    line = resolve(dir)
    refuse_dirty(Path(dir), line)
    facts = {"id": new_id("rebase"), "by": person(), "reason": reason, "set": parse_overrides(set)}
    spec = _asked(line, base, like, validate_block(RunSpec, facts, "the command"))
    say(f"run {spec.id}")
    open_run(line, spec)
    flags = ["--no-promote"] if no_promote else []
    with goes_on_with(shlex.join(["retain", "night", dir, "--run", spec.id, *flags])):
        ended = play(line, spec.id, no_promote=no_promote)
        sync(Path(dir), line)
        return ended or ending(line, spec.id, dir)


def _asked(line: Line, base: str, like: str | None, spec: RunSpec) -> RunSpec:
    """The run, once everything that can be checked is right and main holds the act that asks for it."""
    refuse_own_rules(spec)
    say("rebase: taking the base")
    with TemporaryDirectory(prefix="retain-") as scratch:
        folder = Path(scratch) / "base"
        take_base(base, folder, like)
        with reading(line.git) as main:
            params = main.params(spec)
            refuse_same(main, folder)
        open_base(folder, params, "rebase")
        event = ask(line, folder, RebaseRequest(spec.id, spec.reason, spec.by, "command line"))
    return spec.model_copy(update={"rebase": event.after["md5"]})
