"""`retain rollback`: an older version is the champion again, recorded as an event on main."""

from __future__ import annotations

from cl_steps.acts.rollback import Done, roll_back
from cl_steps.records.builders import person
from cl_steps.repository.line import resolve


def rollback(version: str, reason: str, relearn: bool, by: str, through: str, dir: str) -> str:
    """Restore the state of `version`; raises as `cl_steps.acts.rollback.roll_back` does."""
    return _text(roll_back(resolve(dir), version, reason, relearn, by or person(), through), dir)


def _text(done: Done, folder: str) -> str:
    event = done.event
    if done.before:
        return f"{event.version} is the champion already, by this rollback (event {event.id}): nothing changed"
    left = [i for i in done.ledger.intakes.values() if not set(i.versions).isdisjoint(event.left)]
    behind = [intake for intake in left if intake.status != "learnt"]
    number, runs = sum(intake.assets for intake in behind), ", ".join(intake.run for intake in behind)
    if not event.left:
        fate = "no version is left behind"
    elif not behind:
        fate = f"left behind: {', '.join(event.left)}; all that they learnt, {event.version} knows too"
    elif event.relearn:
        fate = f"left behind: {', '.join(event.left)}; their {number} assets ({runs}) wait to be learnt again"
    else:
        fate = f"left behind: {', '.join(event.left)}; their {number} assets ({runs}) are set aside"
    lines = [
        f"{event.version} is the champion again, after {event.champion} (event {event.id})",
        fate,
        "runs under way are stale; the next night learns from here and its version gets a new number",
        f"serving follows with: retain export champion FOLDER --dir {folder}",
    ]
    return "\n".join(lines)
