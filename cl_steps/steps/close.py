"""Step `close` (trusted, always): what a run took in and how it ended, as one event on main.

It also leaves `skipped: why` reports on the run's branch for the stages that never ran, so that a run always has all
its reports. A run that was promoted is closed already; one that failed may be closed again after a retry.

What evaluate and gate say counts, where keys are trusted, only as a judge signed it. Of a branch that somebody changed
nothing counts: its run failed, and took in nothing.

Pictures whose consent has ended (`consent_until`) are withdrawn here, after the first night that found them so; that
night learnt nothing new of them.

It closes other runs of the line, too, that nobody closed: Airflow skips the close of a run that takes longer than a run
may, and a person who is interrupted may not come back. Who goes on with one later closes it anew.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from cl_steps.errors import IntegrityError, RetainError
from cl_steps.ledger.events import FINAL, event_bytes, event_path
from cl_steps.ledger.fold import Ledger
from cl_steps.ledger.lasting import WrongShape
from cl_steps.pipeline import STAGES, STEPS, Outcome, next_step, outcome, stop_reason
from cl_steps.progress import say
from cl_steps.records.builders import intake_file, run_event
from cl_steps.repository.beginning import BEGUN, beginning
from cl_steps.repository.git import remote_refs, text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Change, Mainline, reading
from cl_steps.repository.run_branch import RunState, branch_of, checked_out, run_state
from cl_steps.run.context import StepReport, write_report
from cl_steps.run.stage import push_branch
from cl_steps.steps.overlap import taken_before
from cl_steps.steps.staleness import why_stale
from cl_steps.store.pointers import dvc_file, read_dvc_file
from cl_steps.verify.judging import why_not_believed

REASON = "consent ended (consent_until)"
LOST = timedelta(days=8)
"""So long after the last that came from it a run that nobody closed is closed: Airflow ends most runs after a week."""


def run(line: Line, run_id: str) -> Outcome:
    """Close a run and return how it ended; a run that ended stays as it is. It mends tags that a crash left out."""
    with reading(line.git) as main:
        main.mend_tags()
        ended = main.ledger().outcome(run_id)
        result = ended if ended in FINAL else _end(main, line, run_id, lost=False)
        _withdraw_ended(main, line, run_id)
        for other in _open_runs(main) - {run_id}:
            try:
                _end_lost(main, line, other)
            except RetainError as error:
                say(f"close: run {other} stays open: {error}")
        return result  # type: ignore[return-value]


def _withdraw_ended(main: Mainline, line: Line, run_id: str) -> None:
    """Have withdrawn what ingest found that consent has ended for: an act signed like a person's, which asks itself."""
    try:
        with checked_out(line, run_id) as root:
            found = run_state(root).figures("ingest").get("consent_ended")
        if not isinstance(found, list) or set(map(str, found)) <= main.ledger().tombstones.keys():
            return
        # Here and not above: a night that withdraws nothing needs none of it.
        from cl_steps.acts.withdrawal import Request, withdraw

        day = main.moment().date().isoformat()
        done = withdraw(line, Request(None, None, REASON, erase=False, by="retain", through="close", ended=day))
    except RetainError as error:
        say(f"close: nothing is withdrawn for ended consent: {error}")
        return
    say(f"close: {len(done.event.assets)} images are withdrawn, since consent ended (event {done.event.id})")


def _open_runs(main: Mainline) -> set[str]:
    """Runs that began and that main tells no end of."""
    begun = {ref.removeprefix(BEGUN) for ref in remote_refs(main.url, f"{BEGUN}*")}
    return begun - main.ledger().runs.keys()


def _end_lost(main: Mainline, line: Line, run_id: str) -> None:
    began = text(main.folder, "show", "-s", "--format=%cI", beginning(main, run_id).commit)
    if main.moment() - datetime.fromisoformat(began) > LOST:
        _end(main, line, run_id, lost=True)


def _end(main: Mainline, line: Line, run_id: str, *, lost: bool) -> Outcome | None:
    """Close a run, one that is `lost` only where nothing came from it of late; returns how it ended, if it did."""
    with ExitStack() as stack:
        try:
            root = stack.enter_context(checked_out(line, run_id))
            state = run_state(root)
            _refuse_odd(state)
        except IntegrityError as error:
            return _close_as_changed(main, line, run_id, error)
        last = datetime.fromisoformat(text(root, "show", "-s", "--format=%cI", "HEAD"))
        if not lost:
            return _close(main, line, root, state)
        gone = f"nobody closed it, and nothing came from it since {last:%Y-%m-%d}: "
        return _close(main, line, root, state, gone) if main.moment() - last > LOST else None


def _refuse_odd(state: RunState) -> None:
    """Raise IntegrityError where an event would say of the run what no event says."""
    try:
        run_event(state, "failed", "")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = str(error) if isinstance(error, WrongShape) else "its figures are of another shape"
        raise IntegrityError(
            f"reports/ingest.json of run {state.spec.id} is not as ingest writes it ({why})"
        ) from error


def _close(main: Mainline, line: Line, root: Path, state: RunState, lost: str = "") -> Outcome:
    """`lost` is said of a run that nobody closed, before why it failed."""
    if unsigned := why_not_believed(line, root, state, main.moment()):
        state = replace(state, reports={name: state.reports[name] for name in state.reports if not STEPS[name].judges})
    stale = _stale(main, line, state)
    result = outcome(state.reports, promoted=False, stale=bool(stale))
    _complete(root, line, state, result)
    base = beginning(main, state.spec.id).base
    why = stale or unsigned or _why(state, result, lost)
    main.swap(lambda: _change(main, state, result, why, taken_before(main, line, state, base)))
    return result


def _close_as_changed(main: Mainline, line: Line, run_id: str, error: IntegrityError) -> Outcome:
    """Of its branch only where it is now counts."""
    tip = remote_refs(line.git, f"refs/heads/{branch_of(run_id)}")
    state = RunState(beginning(main, run_id).spec, {}, {}, next(iter(tip.values()), ""))
    main.swap(lambda: _change(main, state, "failed", str(error)))
    return "failed"


def _stale(main: Mainline, line: Line, state: RunState) -> str | None:
    """Why a run that would have been promoted was not, if it is stale."""
    wanted = len(state.reports) == len(STAGES) and next_step(state.reports) == "promote"
    return why_stale(main, line, state) if wanted else None


def _complete(root: Path, line: Line, state: RunState, result: Outcome) -> None:
    why = stop_reason(state.reports)
    if not why or result == "failed":
        return
    for step in STAGES:
        if step.name not in state.reports:
            write_report(root, step.name, state.spec.id, StepReport(why=why), status="skipped")
    push_branch(root, line, state.spec.id, "close: the rest is skipped")


def _change(main: Mainline, state: RunState, result: Outcome, why: str, again: int = 0) -> Change | None:
    ledger = main.ledger()
    if ledger.outcome(state.spec.id) in FINAL:
        return None
    moment = main.moment()
    event = run_event(state, result, why, rebase=ledger.rebases.get(state.spec.id), at=moment, again=again)
    files = {**_intake_file(ledger, state), event_path("run", state.spec.id, moment): event_bytes(event)}
    return Change(files, f"close run {state.spec.id}: {result}\n\nRun-Id: {state.spec.id}\n")


def _intake_file(ledger: Ledger, state: RunState) -> dict[str, bytes]:
    """The `.dvc` file of what the run took in, or of what stands for it since an asset of it was erased."""
    files = intake_file(state)
    for path, content in files.items():
        out = read_dvc_file(content)
        files[path] = dvc_file({**out, **ledger.standing(str(out["md5"]))}, state.spec.id)
    return files


def _why(state: RunState, result: Outcome, lost: str) -> str:
    if result == "failed":
        done = [step.name for step in STAGES if step.name in state.reports]
        return f"{lost}it stopped after {done[-1] if done else 'its beginning'}: see the log of the step that follows"
    for name in ("gate", "drift", "ingest"):
        report = state.reports.get(name)
        if report and report.done:
            return report.why
    return ""
