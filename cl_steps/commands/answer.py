"""`retain approve` and `retain refuse`: a person's answer to a held run, recorded as an event on main.

A yes binds to the batch's digest. Held by drift: the next night, or a run started now, learns exactly that batch.
Held by the gate: the candidate is promoted now, if the champion is still the one that it was compared with.
"""

from __future__ import annotations

from cl_steps.errors import UsageError
from cl_steps.ledger.events import EVENT_SCHEMA, AnswerEvent, RunEvent, event_path
from cl_steps.records.builders import now, person
from cl_steps.records.signer import event_files
from cl_steps.repository.line import Line, resolve
from cl_steps.repository.mainline import Change, reading


def approve(run: str, reason: str, by: str, through: str, dir: str) -> str:
    """Say yes; raises UsageError where the run is not held or has another answer."""
    line = resolve(dir)
    held = _answer(line, run, "yes", reason, by, through)
    if held.gate is None:
        return f"approved: the next night learns exactly the batch of {run}; now: retain night {dir} --batch {run}"
    from cl_steps.steps.promote import run as promote

    return f"approved: {promote(line, run)}"


def refuse(run: str, reason: str, by: str, through: str, dir: str) -> str:
    """Say no; raises UsageError where the run is not held or has another answer."""
    held = _answer(resolve(dir), run, "no", reason, by, through)
    return "refused: the line keeps its base" if held.rebase else f"refused: the batch of {run} stays set aside"


def _answer(line: Line, run: str, answer: str, reason: str, by: str, through: str) -> RunEvent:
    """Put the answer on main, once: the same answer by the same person again changes nothing."""
    if not reason.strip():
        raise UsageError('an answer needs a reason: --reason "..."')
    with reading(line.git) as main:
        said = {"run": run, "answer": answer, "by": by or person(), "through": through, "reason": reason}

        def change() -> Change | None:
            ledger = main.ledger()
            held, earlier = ledger.runs.get(run), ledger.answers.get(run)
            if earlier and (earlier.by, earlier.yes, earlier.reason) == (said["by"], answer == "yes", reason):
                return None
            if earlier:
                raise UsageError(f"run {run!r} was answered already, by {earlier.by}")
            if not held or held.outcome != "held" or held.batch is None:
                raise UsageError(f"run {run!r} is not held: `retain status` lists what waits for an answer")
            moment = main.moment()
            event = AnswerEvent.from_document(
                {
                    "schema": EVENT_SCHEMA,
                    "kind": "answer",
                    "at": now(moment),
                    "digest": held.batch.digest,
                    **said,
                }
            )
            files = event_files(line, event_path("answer", run, moment), event)
            return Change(files, f"answer to run {run}\n\nRun-Id: {run}\n")

        main.swap(change)
        return main.ledger().runs[run]
