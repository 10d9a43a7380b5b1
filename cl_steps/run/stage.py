"""One stage of a run, as a container runs it: clone, fetch what it reads, run, store what it wrote, commit, push.

Stateless and repeatable: scratch is private, data is pushed before the branch, and a stage whose inputs are those of
its entry in `dvc.lock` is not run again. Whether that is so is decided here from digests, never by DVC on a fresh
clone, which takes a missing dependency for an unchanged one.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cl_steps.config import parse_mapping
from cl_steps.errors import Unavailable
from cl_steps.landing.place import open_landing
from cl_steps.landing.snapshot import no_snapshot, take_snapshot
from cl_steps.ledger.fold import read_ledger
from cl_steps.ledger.reports import read_reports
from cl_steps.ledger.times import add_time, device_of
from cl_steps.pipeline import STATE, TONIGHT, Report, Said, Step, of_run, stop_reason
from cl_steps.repository.git import GitError, git, refusal, remote_refs, text
from cl_steps.repository.line import Line
from cl_steps.repository.run_branch import RunState, branch_of, checked_out, run_state
from cl_steps.run.context import Context, StepReport, code_digest, write_report
from cl_steps.run.machine import Machine
from cl_steps.store import dvc
from cl_steps.store.digests import file_md5, folder_md5
from cl_steps.store.objects import Store
from cl_steps.store.pointers import Out, lock_outs, read_dvc_file

if TYPE_CHECKING:
    from cl_steps.store.dvc import Repo

StepFunction = Callable[[Context], StepReport]
GIT_READS = ("events", "checks")


class Oversight(Protocol):
    """Looks at a stage's checkout from outside of the stage: may it run on that, and who says what it found?"""

    def check(self, root: Path, step: Step) -> None:
        """Raise where the step must not run on what was fetched for it."""

    def is_vouched(self, root: Path, step: Step, state: RunState) -> bool:
        """Whether what is stored of the step was found by whom the line believes."""

    def vouch(self, root: Path, step: Step) -> None:
        """Sign, beside its report, what the step found."""


def run_stage(line: Line, run: str, step: Step, function: StepFunction, oversight: Oversight | None = None) -> Report:
    """Run one stage of a run, unless it is done already, and return its report.

    On a node that only helps another (`run.machine`) nothing is stored, and the report says so.

    Raises:
        RetainError: what the step says; nothing is stored then.
        Unavailable: a remote cannot be reached, or another process wrote the branch meanwhile.
    """
    began = time.monotonic()
    with checked_out(line, run, ledger="events" in step.reads) as root:
        state = run_state(root)
        step = of_run(step, bool(state.spec.rebase))
        if is_current(root, step, state) and (oversight is None or oversight.is_vouched(root, step, state)):
            return state.reports[step.name]
        with dvc.opened(root, line.store) as repo:
            context = Context.of(root, line.work or None)
            _fetch(repo, line, context, step, state.lock)
            if oversight:
                oversight.check(root, step)
            found = run_in_place(context, step, function)
            if Machine.of(os.environ).only_helps:
                return Said("helped", None, "node 0 stores the result")
            dvc.commit(repo, step.name)
            if oversight:
                oversight.vouch(root, step)
        seconds = time.monotonic() - began
        spent = seconds + found.earlier_seconds
        add_time(root, step.name, spent, device_of(step, context.params.compute), found.processes)
        push_branch(root, line, run, f"{step.name}: done", seconds=seconds)
        found.once_stored()
        return read_reports(root)[step.name]


def run_in_place(context: Context, step: Step, function: StepFunction) -> StepReport:
    """Run a stage on the checkout as it is; after a verdict that ends a run: `skipped: why` and empty outputs."""
    before = {name: report for name, report in context.reports.items() if f"reports/{name}.json" in step.reads}
    reason = stop_reason(before) or next((r.why for r in before.values() if r.status == "skipped"), None)
    if reason:
        return write_skipped(context.root, step, context.run.id, reason)
    report = function(context)
    write_report(context.root, step.name, context.run.id, report)
    return report


def write_skipped(root: Path, step: Step, run: str, why: str) -> StepReport:
    """Write and return the report of a stage that has nothing to do, and its empty outputs."""
    for name in step.writes:
        if name.startswith(TONIGHT):
            shutil.rmtree(root / name, ignore_errors=True)
            (root / name).mkdir(parents=True)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text('<?xml version="1.0" encoding="utf-8"?><testsuites/>\n', encoding="utf-8")
    report = StepReport(why=why)
    write_report(root, step.name, run, report, status="skipped")
    return report


def push_branch(root: Path, line: Line, run: str, message: str, seconds: float = 0.0) -> None:
    """Commit lock and reports and put them on the run's branch, fast-forward only; raises Unavailable."""
    git(root, "add", "--all", "--force", "--", "reports", *(["dvc.lock"] if (root / "dvc.lock").exists() else []))
    if not text(root, "status", "--porcelain", "--untracked-files=no", "--", "reports", "dvc.lock"):
        return
    git(root, "commit", "-q", "-m", f"{message}\n\nRun-Id: {run}\nSeconds: {seconds:.1f}\n")
    try:
        git(root, "push", "-q", line.git, f"HEAD:refs/heads/{branch_of(run)}")
    except GitError as error:
        tip = remote_refs(line.git, f"refs/heads/{branch_of(run)}")
        seen = next(iter(tip.values()), "gone")
        raise Unavailable(
            f"the branch of run {run}, at {seen[:10]} now, cannot be written: {refusal(error)}"
        ) from error


def is_current(root: Path, step: Step, state: RunState) -> bool:
    """Whether the stage's stored result was made from exactly what it would read now."""
    entry, report = state.lock.get(step.name), state.reports.get(step.name)
    if not entry or not report or report.run != state.spec.id or report.code != code_digest():
        return False
    outs = lock_outs(state.lock)
    # The landing is read once a run: what arrives later belongs to the next night.
    deps = {dep["path"]: dep["md5"] for dep in entry["deps"] if dep["path"] != "landing"}
    return all(_md5(root, path, outs) == md5 for path, md5 in deps.items()) and _params_current(root, entry)


def _md5(root: Path, path: str, outs: dict[str, Out]) -> str | None:
    tracked = root / f"{path}.dvc"
    if path in outs and not (root / path).is_file():
        return str(outs[path]["md5"])
    if tracked.is_file():
        return str(read_dvc_file(tracked.read_bytes())["md5"])
    if (root / path).is_dir():
        return folder_md5(root / path)
    return file_md5(root / path) if (root / path).is_file() else None


def _params_current(root: Path, entry: dict[str, Any]) -> bool:
    for name, values in entry.get("params", {}).items():
        now = parse_mapping((root / name).read_bytes(), name)
        if any(plain(now.get(key)) != plain(value) for key, value in values.items()):
            return False
    return True


def plain(value: Any) -> Any:
    """A parameter as it compares: DVC writes 5.0e-5 as `5e-05`, which YAML 1.1 reads as a word."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    try:
        return value if isinstance(value, bool | None) else float(value)
    except (TypeError, ValueError):
        return value


def _fetch(repo: Repo, line: Line, context: Context, step: Step, lock: dict[str, Any]) -> None:
    outs = lock_outs(lock)
    tracked = [f"state/{name}" for name in STATE if f"state/{name}" in step.reads]
    dvc.pull(repo, [*tracked, *(name for name in step.reads if name in outs and name.startswith(TONIGHT))])
    for name in GIT_READS:
        (context.root / name).mkdir(exist_ok=True)
    if "landing" in step.reads:
        _look_at_landing(line, context)
        _fetch_intakes(repo, context)


def _look_at_landing(line: Line, context: Context) -> None:
    """Copy what lies in the landing now: a run sees one state of it, whatever arrives meanwhile."""
    if context.run.batch or context.run.rebase:
        no_snapshot(context.root)
    else:
        source = open_landing(line, context.params, context.root)
        take_snapshot(source, context.params.ingest, context.run.id, context.root)


def _fetch_intakes(repo: Repo, context: Context) -> None:
    """Whole intakes of the batch; of those set aside only what tells their assets again."""
    ledger = read_ledger(context.root / "events")
    whole = ledger.members(context.run, context.params.ingest.max_attempts)
    dvc.pull(repo, [f"data/{run}" for run in whole])
    for run, intake in ledger.intakes.items():
        if run not in whole and intake.status != "learnt":
            (context.root / "data" / run).mkdir()
            for name, content in Store.of(repo).files(intake.md5, ["manifest.parquet"]).items():
                (context.root / "data" / run / name).write_bytes(content)
