"""A run as a branch `runs/<run_id>` of the workspace: open it, read it. The Git half of running; no DVC."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from cl_steps.config import RUN_ID, RunSpec, load_params, load_run
from cl_steps.errors import Unavailable, UsageError
from cl_steps.workspace.context import read_reports
from cl_steps.workspace.git import GitError, clone, git, reason, remote_refs, text
from cl_steps.workspace.line import Line
from cl_steps.workspace.mainline import Change, Mainline
from cl_steps.workspace.rebased import rebase_files
from cl_steps.workspace.store import read_lock
from cl_steps.workspace.times import Times, read_times

JUDGES = ("drift", "gate", "ingest.max_attempts", "evaluate.looks")
"""What of params.yaml says how a run is judged; attempts and looks share out the gate's level."""


@dataclass(frozen=True)
class RunState:
    """What a run's branch holds now."""

    spec: RunSpec
    reports: dict[str, dict[str, Any]]
    lock: dict[str, Any]
    tip: str
    times: Times = field(default_factory=dict)


def run_id(day: str, *parts: str) -> str:
    """The id of a run: its day and a short digest of what asked for it, so that a retry finds the same branch."""
    return f"{day}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:8]}"


def branch_of(run: str) -> str:
    """The branch of a run; raises UsageError for an id that cannot be one."""
    if not RUN_ID.fullmatch(run):
        raise UsageError(f"{run!r} is not a run id: `retain runs` lists them")
    return f"runs/{run}"


def open_run(line: Line, spec: RunSpec) -> RunSpec:
    """Make the run's branch on the tip of main, or find it as an earlier try left it.

    Without a batch of its own the run takes, first, a held batch that a person approved since, else what is pending.
    The branch of a rebase holds the new base, as the person's act on main names it.

    Raises:
        UsageError: parameters, overrides or the batch are not right, or nobody asked for the rebase.
        Unavailable: the Git remote cannot be reached.
    """
    branch = f"refs/heads/{branch_of(spec.id)}"
    if branch in remote_refs(line.git, branch):
        return read_run(line, spec.id).spec
    with tempfile.TemporaryDirectory(prefix="retain-") as scratch:
        main = Mainline.open(line.git, Path(scratch))
        spec = _completed(main, spec, Path(scratch))
        old = {f"reports/{name}": None for name in main.folder_files("reports")}
        files = {**old, "run.yaml": _yaml(spec), **_new_base(main, spec)}
        change = Change(files, f"run {spec.id}: begin\n\nRun-Id: {spec.id}\n")
        commit = main.commit(change)
        try:
            git(main.folder, "push", "-q", f"--force-with-lease={branch}:", line.git, f"{commit}:{branch}")
        except GitError as error:
            if branch not in remote_refs(line.git, branch):
                raise Unavailable(f"the run's branch cannot be written: {reason(error)}") from error
            return read_run(line, spec.id).spec
    return spec


def read_run(line: Line, run: str) -> RunState:
    """The run's branch as it is now; raises UsageError for a run that is not there."""
    branch = branch_of(run)
    if f"refs/heads/{branch}" not in remote_refs(line.git, f"refs/heads/{branch}"):
        raise UsageError(f"there is no run {run!r}: `retain runs` lists them")
    with tempfile.TemporaryDirectory(prefix="retain-") as scratch:
        root = Path(scratch) / "run"
        clone(line.git, root, branch)
        return run_state(root)


def run_state(root: Path) -> RunState:
    """What the clone of a run's branch at `root` holds."""
    lock = root / "dvc.lock"
    stages = read_lock(lock.read_bytes() if lock.is_file() else None)
    return RunState(load_run(root), read_reports(root), stages, text(root, "rev-parse", "HEAD"), read_times(root))


def refuse_own_rules(spec: RunSpec) -> None:
    """A run may choose how it learns, and not how it is judged; raises UsageError."""
    for key in spec.set:
        if any(_within(key, judge) or _within(judge, key) for judge in JUDGES):
            raise UsageError(
                f"{key} cannot be set for one run: change it in params.yaml on main, where everybody sees it"
            )


def _within(key: str, block: str) -> bool:
    return f"{key}.".startswith(f"{block}.")


def _completed(main: Mainline, spec: RunSpec, scratch: Path) -> RunSpec:
    refuse_own_rules(spec)
    ledger = main.ledger()
    if spec.batch:
        ledger.batch_of(spec.batch)
    facts = {
        "batch": None if spec.rebase else spec.batch or ledger.approved(),
        "base": main.tip,
        "state": main.tree("state"),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    completed = spec.model_copy(update=facts)
    (scratch / "params.yaml").write_bytes(main.read("params.yaml") or b"")
    load_params(scratch, completed)
    return completed


def _new_base(main: Mainline, spec: RunSpec) -> dict[str, bytes]:
    """The files that bring the new base of a rebase; none in another run."""
    if not spec.rebase:
        return {}
    asked = main.ledger().rebases.get(spec.id)
    if not asked or asked["after"]["md5"] != spec.rebase:
        raise UsageError(f"main holds no act of a person for the new base of run {spec.id}: use `retain rebase`")
    return rebase_files(main.read("dvc.yaml") or b"", asked["after"])


def _yaml(spec: RunSpec) -> bytes:
    return yaml.safe_dump(spec.model_dump(), sort_keys=False, allow_unicode=True).encode()
