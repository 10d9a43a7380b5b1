"""A run as a branch `runs/<run_id>` of the workspace: open it, read it. The Git half of running; no DVC."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cl_steps.config import RUN_ID, RunSpec, load_params, load_run
from cl_steps.errors import IntegrityError, Unavailable, UsageError
from cl_steps.ledger.reports import Report, read_reports
from cl_steps.ledger.times import Times, read_times
from cl_steps.repository.beginning import beginning_files, begun_ref, compare_with_beginning, refuse_own_rules
from cl_steps.repository.git import LEDGER, RECORDS, GitError, clone, git, reason, remote_refs, text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Change, Mainline
from cl_steps.store.digests import OBJECT
from cl_steps.store.pointers import read_lock

"""What DVC calls the bytes of an output."""


@dataclass(frozen=True)
class RunState:
    """What a run's branch holds now."""

    spec: RunSpec
    reports: dict[str, Report]
    lock: dict[str, Any]
    tip: str
    times: Times = field(default_factory=dict)

    def figures(self, step: str) -> dict[str, Any]:
        """What a step's report says in figures; empty where there is none."""
        return self.reports[step].figures if step in self.reports else {}

    def verdict(self, step: str) -> str | None:
        """What a step judged, if it did."""
        return self.reports[step].verdict if step in self.reports else None

    @property
    def batch(self) -> dict[str, Any]:
        """What the run's ingest says of its batch: `runs`, `digest`; raises IntegrityError where it says neither."""
        found = self.figures("ingest").get("batch")
        if isinstance(found, dict) and isinstance(found.get("digest"), str) and isinstance(found.get("runs"), list):
            return found
        raise IntegrityError(f"reports/ingest.json of run {self.spec.id} names no batch: trigger a new run")


def run_id(day: str, *parts: str) -> str:
    """The id of a run: its day and a short digest of what asked for it, so that a retry finds the same branch."""
    return f"{day}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:8]}"


def branch_of(run: str) -> str:
    """The branch of a run; raises UsageError for an id that cannot be one."""
    if not RUN_ID.fullmatch(run):
        raise UsageError(f"{run!r} is not a run id: `retain runs` lists them")
    return f"runs/{run}"


def open_run(line: Line, spec: RunSpec, *, again: bool = False) -> RunSpec:
    """Make the run's branch, and the one that says how it began, on the tip of main; or find them as they are.

    Without a batch of its own the run takes, first, a held batch that a person approved since, else what is pending.
    The branch of a rebase holds the new base, as the person's act on main names it. A run that only plays one of before
    `again`, in a line made for that, keeps whatever parameters it had.

    Raises:
        UsageError: parameters, overrides or the batch are not right, or nobody asked for the rebase.
        Unavailable: the Git remote cannot be reached.
    """
    branch, begun = f"refs/heads/{branch_of(spec.id)}", begun_ref(spec.id)
    found = remote_refs(line.git, branch, begun)
    if branch in found:
        return read_run(line, spec.id).spec
    if not again:
        refuse_own_rules(spec)
    with tempfile.TemporaryDirectory(prefix="retain-") as scratch:
        main = Mainline.open(line.git, Path(scratch))
        if begun in found:
            # The server was killed between the two: only the run's own branch lacks.
            git(main.folder, "fetch", "-q", "--depth", "1", "--no-tags", "origin", begun)
            commit = found[begun]
        else:
            spec = _completed(main, spec, Path(scratch))
            commit = main.commit(Change(beginning_files(main, spec), f"run {spec.id}: begin\n\nRun-Id: {spec.id}\n"))
        _make(main, {branch: commit, **({} if begun in found else {begun: commit})})
    return read_run(line, spec.id).spec if begun in found else spec


def _make(main: Mainline, refs: Mapping[str, str]) -> None:
    """Make branches that are not there, all or none; whoever was faster made the same run."""
    leases = [f"--force-with-lease={ref}:" for ref in refs]
    try:
        wanted = (f"{commit}:{ref}" for ref, commit in refs.items())
        git(main.folder, "push", "-q", "--atomic", *leases, main.url, *wanted)
    except GitError as error:
        if refs.keys() - remote_refs(main.url, *refs).keys():
            raise Unavailable(f"the run's branch cannot be written: {reason(error)}") from error


def read_run(line: Line, run: str) -> RunState:
    """The run's branch as it is now.

    Raises:
        UsageError: there is no such run.
        IntegrityError: its branch changed what only main may say.
    """
    with checked_out(line, run) as root:
        return run_state(root)


@contextmanager
def checked_out(line: Line, run: str, ledger: bool = False) -> Iterator[Path]:
    """A private clone of the run's branch, without records and, unless asked for, the ledger; it is gone afterwards.

    Raises:
        UsageError: there is no such run.
        IntegrityError: its branch changed what only main may say.
        Unavailable: the remote cannot be read.
    """
    branch = branch_of(run)
    with tempfile.TemporaryDirectory(prefix="retain-", ignore_cleanup_errors=True) as scratch:
        root = Path(scratch) / "workspace"
        try:
            clone(line.git, root, branch, leave=RECORDS if ledger else (*RECORDS, *LEDGER))
        except Unavailable:
            if f"refs/heads/{branch}" not in remote_refs(line.git, f"refs/heads/{branch}"):
                raise UsageError(f"there is no run {run!r}: `retain runs` lists them") from None
            raise
        compare_with_beginning(root, run)
        yield root


def run_state(root: Path) -> RunState:
    """What the clone of a run's branch at `root` holds; raises IntegrityError where it is not what steps write."""
    lock = root / "dvc.lock"
    spec, tip = load_run(root), text(root, "rev-parse", "HEAD")
    reports, times = read_reports(root), read_times(root)
    try:
        stages = read_lock(lock.read_bytes() if lock.is_file() else None)
        wrong = wrong_in(stages, times)
    except IntegrityError:
        wrong = "dvc.lock"
    except (ValueError, TypeError, AttributeError, RecursionError):
        wrong = "what lies there"
    if wrong:
        raise IntegrityError(
            f"{wrong} on the branch of run {spec.id} is not as steps write it: do not use it, and trigger a new run"
        )
    return RunState(spec, reports, stages, tip, times)


def wrong_in(lock: Mapping[str, Any], times: Mapping[str, Any]) -> str | None:
    """What of a run's branch is not of the shape that steps write; whoever writes there may write anything."""
    for name, stage in lock.items():
        if not _is_entry(stage):
            return f"the entry of {name!r:.40} in dvc.lock"
    fine = all(isinstance(spent, dict) and isinstance(spent.get("seconds"), int | float) for spent in times.values())
    return None if fine else "reports/times.json"


def _is_entry(stage: Any) -> bool:
    if not isinstance(stage, dict):
        return False
    named = [item for key in ("deps", "outs") for item in stage.get(key, [])]
    return all(isinstance(item, dict) and {"path", "md5"} <= item.keys() for item in named) and all(
        isinstance(item["path"], str) and OBJECT.fullmatch(str(item["md5"])) for item in named
    )


def _completed(main: Mainline, spec: RunSpec, scratch: Path) -> RunSpec:
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
