"""Everything in `lines.yaml` that keeps a line from its nights, for those who have to mend it."""

from __future__ import annotations

from cl_steps.orchestration.registry import Entry, Fault, Reading
from cl_steps.orchestration.telling import notifiers


def faults(reading: Reading) -> list[Fault]:
    """What could not be read, and the lines whose people cannot be told."""
    found = list(reading.faults)
    for entry in reading.entries:
        try:
            _make_notifiers(entry)
        except Exception as error:
            found.append(Fault(entry.name, str(error)))
    return found


def sentence(found: list[Fault]) -> str:
    """All of them, each on a line of its own."""
    return "\n".join(["mend lines.yaml, Airflow reads it again by itself; all other lines go on:", *map(str, found)])


def _make_notifiers(entry: Entry) -> None:
    for what in {what for wish in entry.notify for what in wish.of}:
        list(notifiers(entry, what))
