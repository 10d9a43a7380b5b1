"""Whether a person's answer on main lets a run be promoted: one rule, asked before and while main changes."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from cl_steps.config import Params
from cl_steps.errors import IntegrityError, StaleRun, UsageError
from cl_steps.ledger.events import AnswerEvent, parse_event
from cl_steps.records.signer import signature_path
from cl_steps.repository.mainline import Mainline
from cl_steps.repository.run_branch import RunState
from cl_steps.verify.authenticity import Trust, check_act
from cl_steps.verify.signers import insist

FACTS = ("by", "reason", "answer", "at", "through")


def covering_answer(main: Mainline, trust: Trust | None, state: RunState, rules: Params) -> dict[str, Any] | None:
    """The yes of a person to exactly this candidate, as a record keeps it; None where none is wanted.

    One is wanted where the gate could not tell, where main's rules want one before each promotion, and where main says
    that the run was held. Whatever else ended stays so.

    Args:
        main: as it is now.
        trust: whose signature an answer must have; None asks for none.
        state: the run's branch.
        rules: the parameters of main by which the run is judged.

    Raises:
        UsageError: the gate's verdict is no `promote`, the run has ended, or no person said yes.
        StaleRun: main says that the run is stale.
        IntegrityError: the yes was given to something else, or nobody who counts signed it.
    """
    run, verdict = state.spec.id, state.verdict("gate")
    event = main.ledger().runs.get(run)
    ended = event.outcome if event else None
    if ended == "stale":
        raise StaleRun(f"run {run} is stale: trigger a new run")
    if verdict not in ("promote", "inconclusive"):
        raise UsageError(f"run {run} cannot be promoted: the gate's verdict is {verdict or 'missing'}")
    if ended not in (None, "failed", "held", "promoted"):
        raise UsageError(f"run {run} cannot be promoted: it ended {ended}; trigger a new run")
    if ended != "held" and verdict == "promote" and not rules.gate.approval:
        return None
    found = _answer(main, trust, run)
    if found is None or event is None:
        raise UsageError(
            f"run {run} needs a person's yes before it is promoted: `retain approve {run}` once it is held"
        )
    if not found.yes:
        raise UsageError(f"run {run} cannot be promoted: {found.by} refused it; trigger a new run")
    if found.digest != state.batch["digest"] or event.tip != state.tip:
        raise IntegrityError(
            f"the yes to run {run} was given to another candidate than its branch has: trigger a new run"
        )
    return {name: getattr(found, name) for name in FACTS}


def _answer(main: Mainline, trust: Trust | None, run: str) -> AnswerEvent | None:
    """The last answer to a run, which, with `trust`, somebody signed who counts."""
    names = [name for name in main.blobs("events") if name.endswith(f"-answer-{run}.json")]
    if not names:
        return None
    path = f"events/{names[-1]}"
    content = main.read(path) or b""
    event = parse_event(names[-1], content)
    if not isinstance(event, AnswerEvent):
        raise IntegrityError(f"{path} is no answer: restore it from Git's history")
    if trust:
        _insist(main, trust, path, content, event)
    return event


def _insist(main: Mainline, trust: Trust, path: str, content: bytes, event: AnswerEvent) -> None:
    made = datetime.fromisoformat(event.at)
    check = partial(check_act, trust, path, content, made=made)
    insist(trust, path, signature_path(path), main.read(signature_path(path)), made, lambda: True, check)
