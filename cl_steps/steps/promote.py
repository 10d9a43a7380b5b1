"""Step `promote` (trusted): the candidate becomes the champion, in one commit on main, or nothing happens.

Whoever writes the run's branch decides nothing here. What promotion reads, and where from:

    how the run began, its settings        `begun/<run>`, which no step can write; a commit of main, asked of main
    params.yaml, checks/, dvc.yaml         that commit of main
    how the run ended, a person's answer,  main now: an answer counts for the candidate that it was given to, and where
    what was withdrawn, who is champion    keys are trusted only with a signature
    verdict, figures, and the digests of   the run's branch, where keys are trusted only as a judge signed them; the
    what the steps before them stored      verdict is worked out again from the figures
    seconds, GPUs                          the run's branch, as it says: nothing follows from them

Without trusted keys nobody's signature can be asked, so that the owner's own checks are run again here.

Every object of the new state must be on the store; the commit is a compare-and-swap. Run it again and it finds its own
event on main and is done. A rebase is promoted only where main holds the act of a person who asked for exactly this
base. An adapter fits its own base alone, so that the new version is the anchor of every slice: the total budget begins
anew, by a person's act.
"""

from __future__ import annotations

from pathlib import Path

from cl_steps.acts.answers import covering_answer
from cl_steps.checks.own import complaints, run_own
from cl_steps.config import Params
from cl_steps.digests import file_sha256
from cl_steps.documents import json_text
from cl_steps.errors import IntegrityError, StaleRun, UsageError
from cl_steps.ledger.champion import CHAMPION, Champion, champion_bytes, parse_champion
from cl_steps.ledger.events import event_bytes, event_path
from cl_steps.ledger.names import tag_of
from cl_steps.ledger.record import Record
from cl_steps.pipeline import EVALUATE, GATE, next_state
from cl_steps.records.builders import Basis, intake_file, run_event, version_record
from cl_steps.records.signer import version_files
from cl_steps.repository.beginning import Beginning, beginning
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Change, Mainline, reading
from cl_steps.repository.run_branch import RunState, checked_out, run_state
from cl_steps.stats.decision import decide
from cl_steps.stats.figures import read_figures
from cl_steps.steps.overlap import taken_before
from cl_steps.steps.staleness import why_stale
from cl_steps.store import dvc
from cl_steps.store.objects import Store
from cl_steps.store.pointers import dvc_file, lock_outs
from cl_steps.verify.authenticity import Trust
from cl_steps.verify.consistency import disagreements, state_digests
from cl_steps.verify.judged import doubt_of
from cl_steps.verify.judging import CANDIDATE, FIGURES, IN_FULL, believed, check_judged, disbelief, statements
from cl_steps.verify.rebases import asked_for


def run(line: Line, run_id: str) -> str:
    """Promote the candidate of a run and return its version.

    Raises:
        UsageError: the gate did not say `promote`, a person's yes is wanted and not there, or the run has ended.
        StaleRun: the champion changed since the run began, or something that it learnt was withdrawn.
        IntegrityError: the run's branch is not what main, a judge or a person says it is, or an object is not on the
            store.
    """
    with reading(line.git) as main, checked_out(line, run_id) as root:
        state = run_state(root)
        event = main.ledger().runs.get(run_id)
        if event and event.outcome == "promoted":
            return str(event.version)
        begun, trust = beginning(main, run_id), believed(line)
        _refuse_stale(main, line, state)
        if begun.spec.rebase:
            asked_for(main, run_id, trust)
        rules = main.at(begun.base).params(begun.spec)
        covering_answer(main, trust, state, rules)
        _check_batch(main, begun, state, rules)
        _check(main, root, line, state, rules, trust)
        main.swap(lambda: _change(main, line, state, begun, root))
        return str(main.ledger().runs[run_id].version)


def _refuse_stale(main: Mainline, line: Line, state: RunState) -> None:
    if why := why_stale(main, line, state):
        raise StaleRun(why)


def _check_batch(main: Mainline, begun: Beginning, state: RunState, rules: Params) -> None:
    """What the run says that it learnt, main's ledger had waiting for it: others do not count as learnt."""
    ledger = main.at(begun.base).ledger()
    waiting = {*ledger.members(begun.spec, rules.ingest.max_attempts), begun.spec.id}
    learnt = {str(run) for run in state.batch["runs"]}
    if learnt - waiting:
        raise IntegrityError(
            f"run {begun.spec.id} says that it learnt what run {min(learnt - waiting)} took in, and that did not wait "
            "for it: trigger a new run"
        )


def _check(main: Mainline, root: Path, line: Line, state: RunState, rules: Params, trust: Trust | None) -> None:
    """The verdict is a judge's, follows from a judge's figures, and all that becomes state is on the store."""
    moment = main.moment()
    if trust:
        check_judged(trust, root, state, GATE, moment, in_full=())
        check_judged(trust, root, state, EVALUATE, moment, in_full=())
    outs = lock_outs(state.lock)
    with dvc.opened(root, line.store) as repo:
        dvc.pull(repo, [FIGURES, CANDIDATE])
        if trust:
            check_judged(trust, root, state, EVALUATE, moment, in_full=IN_FULL[EVALUATE.name])
        _check_figures(root, rules, str(state.verdict("gate")), state.spec.id)
        parts = next_state(bool(state.spec.rebase))
        absent = Store.of(repo).missing([outs[path] for path in (*parts.values(), "tonight/intake")])
    if absent:
        raise IntegrityError(f"run {state.spec.id}: {', '.join(absent)} is not whole on the store; run its step again")
    if trust is None and (against := complaints(run_own(root / "checks", root / FIGURES, rules))):
        raise IntegrityError(f"run {state.spec.id}: its verdict is not that of main's own checks: {against[0]}")


def _check_figures(root: Path, rules: Params, verdict: str, run_id: str) -> None:
    """The stored verdict must follow from the stored figures, and these be of this candidate and of every slice."""
    figures = read_figures(root / FIGURES)
    known = parse_champion((root / CHAMPION).read_bytes()).slices
    adapter = file_sha256(root / CANDIDATE / "pytorch_lora_weights.safetensors")
    if decide(figures, rules).verdict != verdict:
        raise IntegrityError(f"run {run_id}: its verdict does not follow from its figures; do not promote it")
    if not adapter.startswith(figures.plan.candidate) or set(known) - set(figures.plan.slices):
        raise IntegrityError(f"run {run_id}: its figures are of another candidate or lack a slice; run evaluate again")


def _change(main: Mainline, line: Line, state: RunState, begun: Beginning, root: Path) -> Change | None:
    ledger = main.ledger()
    if ledger.outcome(state.spec.id) == "promoted":
        return None
    if ledger.pruned.get(state.spec.id) == state.tip:
        raise UsageError(f"run {state.spec.id} was pruned: trigger a new run")
    _refuse_stale(main, line, state)
    number = 1 + max(main.numbers())
    champion = main.champion()
    then, trust = main.at(begun.base), believed(line)
    approval = covering_answer(main, trust, state, then.params(begun.spec))
    basis = Basis(begun, then.params_file(), approval, statements(root), custody(line), root / CANDIDATE)
    record = version_record(main, state, number, champion, basis)
    _check_record(main, record)
    if trust:
        _refuse_unjudged(trust, record)
    asked = ledger.rebases.get(state.spec.id)
    moment = main.moment()
    again = taken_before(main, line, state, begun.base)
    event = run_event(state, "promoted", state.reports["gate"].why, f"v{number}", asked, moment, again)
    following = next_champion(champion, number, list(record.slices), rebased=asked is not None)
    files = {
        **state_files(state),
        **intake_file(state),
        CHAMPION: champion_bytes(following),
        **version_files(line, record, basis.adapter),
        event_path("run", state.spec.id, moment): event_bytes(event),
        **{f"reports/{name}.json": json_text(report.document()).encode() for name, report in state.reports.items()},
    }
    return Change(files, f"promote v{number}\n\nRun-Id: {state.spec.id}\n", tag_of(number))


def custody(line: Line) -> str:
    """In whose hands the keys are, as far as the promoting process can know: it needs no judge's key."""
    if not line.trusted_keys:
        return "no keys"
    return "one person" if line.judge_key else "separate"


def _check_record(main: Mainline, record: Record) -> None:
    """What the run learnt from must be what main's state is: its branch is open to whoever runs a step."""
    wrong = disagreements(record, state_digests(main.folder_files("state")))
    if wrong:
        raise IntegrityError(f"run {record.run} is not what its branch says: {wrong[0]}; do not promote it")


def _refuse_unjudged(trust: Trust, record: Record) -> None:
    """The judges count when the record says that it was made: `retain verify` asks the same, whenever it does."""
    for step in (GATE, EVALUATE):
        if doubt := doubt_of(trust, record, step.name):
            raise disbelief(step, str(record.run), doubt)


def state_files(state: RunState) -> dict[str, bytes]:
    """The `.dvc` files of the new state: digests out of the run's lock, no byte copied."""
    outs, parts = lock_outs(state.lock), next_state(bool(state.spec.rebase))
    return {f"state/{name}.dvc": dvc_file(outs[path], name) for name, path in parts.items()}


def next_champion(champion: Champion, number: int, slices: list[str], *, rebased: bool) -> Champion:
    """`state/champion.json` of version `number`: slices that are new have it as their anchor, after a rebase all."""
    known, own = sorted({*champion.slices, *slices}), f"v{number}"
    before = {} if rebased else champion.anchors
    anchors = {**before, **{name: before.get(name, own) for name in (known if rebased else slices)}}
    return Champion(version=own, seed_plan=number, slices=tuple(known), anchors=anchors)
