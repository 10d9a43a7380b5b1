"""Rolling back: the state of an older version is the line's again, in one commit on main that moves no data.

Nothing else changes: ledger, parameters, records and tombstones stay, and what was withdrawn stays out. The assets of
the versions left behind are set aside, or wait to be learnt again (`ledger/fold.py` reads the event so). The next
version has the restored one as its parent and a new number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cl_steps.acts.purge import PARTS, Purge
from cl_steps.errors import IntegrityError, UsageError
from cl_steps.ledger.ancestors import chain
from cl_steps.ledger.champion import CHAMPION, champion_bytes
from cl_steps.ledger.events import RollbackEvent
from cl_steps.ledger.fold import Ledger
from cl_steps.records.builders import act
from cl_steps.records.signer import event_files
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Change, Mainline, reading
from cl_steps.store.objects import open_store
from cl_steps.store.pointers import Out, dvc_file, read_dvc_file


@dataclass(frozen=True)
class Done:
    """The event that says it, whether it was on main before, and the ledger since."""

    event: RollbackEvent
    before: bool
    ledger: Ledger


def roll_back(line: Line, version: str, reason: str, relearn: bool, by: str, through: str) -> Done:
    """Make `version` the champion again; the same by the same person, right again, changes nothing.

    Raises:
        UsageError: no reason, no such version, the champion's own, or one whose bytes were erased.
        IntegrityError: an object of its state is missing from the store.
        Unavailable: a remote cannot be reached or does not take the change.
    """
    if not reason.strip():
        raise UsageError('a rollback needs a reason: --reason "..."')
    wanted = {"version": version, "reason": reason, "relearn": relearn, "by": by, "through": through}
    made: list[RollbackEvent] = []
    with reading(line.git) as main:

        def change() -> Change | None:
            if earlier := _same(main, wanted):
                made.append(earlier)
                return None
            event, found = _change(main, line, wanted)
            made.append(event)
            return found

        before = len(main.ledger().rollbacks)
        main.swap(change)
        ledger = main.ledger()
        return Done(made[-1], len(ledger.rollbacks) == before, ledger)


def _same(main: Mainline, wanted: dict[str, Any]) -> RollbackEvent | None:
    """The last rollback, where it is this one and its champion still is the line's."""
    rollbacks, champion = main.ledger().rollbacks, main.champion()
    if not rollbacks or champion.seed_plan != -len(rollbacks):
        return None
    return rollbacks[-1] if all(getattr(rollbacks[-1], key) == value for key, value in wanted.items()) else None


def _change(main: Mainline, line: Line, wanted: dict[str, Any]) -> tuple[RollbackEvent, Change]:
    version, records = str(wanted["version"]), main.records()
    champion = main.champion().version
    lineage = chain(records, version)
    if version == champion:
        raise UsageError(f"{version} is the champion already: there is nothing to roll back")
    then = main.at(main.version_commit(version))
    moment = main.moment()
    left = [name for name in chain(records, champion) if name not in lineage]
    said = {**wanted, "from": champion, "lineage": lineage, "left": left}
    path, event = act(RollbackEvent, version, moment, said)
    files = {**_state_files(main, then, line, version), **event_files(line, path, event)}
    return event, Change(files, f"roll back to {version}\n\nEvent: {event.id}\n")


def _state_files(main: Mainline, then: Mainline, line: Line, version: str) -> dict[str, bytes | None]:
    """`state/` as it was, but for what was withdrawn since and for a seed plan that no promotion uses."""
    ledger, old = main.ledger(), then.folder_files("state")
    files: dict[str, bytes | None] = {f"state/{name}": None for name in main.folder_files("state") if name not in old}
    files |= {f"state/{name}": content for name, content in old.items()}
    champion = then.champion().model_copy(update={"seed_plan": -1 - len(ledger.rollbacks)})
    outs = {name.removesuffix(".dvc"): read_dvc_file(content) for name, content in old.items() if name.endswith(".dvc")}
    restored = _restored(line, ledger, outs, version)
    files |= {f"state/{part}.dvc": dvc_file(out, part) for part, out in restored.items() if out != outs[part]}
    return {**files, CHAMPION: champion_bytes(champion)}


def _restored(line: Line, ledger: Ledger, outs: dict[str, Out], version: str) -> dict[str, Out]:
    """The outputs that the state gets, all of whose objects are on the store; raises as `roll_back` does."""
    found: dict[str, Out] = {part: {**out, **ledger.standing(str(out["md5"]))} for part, out in outs.items()}
    with open_store(line.store) as store:
        _refuse_missing(store.missing(found.values()), ledger, found, version)
        if ledger.tombstones:
            purge = Purge(store, ledger.tombstones.keys())
            found |= {part: {**found[part], **new} for part in PARTS if (new := purge.without(str(found[part]["md5"])))}
    return found


def _refuse_missing(absent: Sequence[str], ledger: Ledger, outs: dict[str, Out], version: str) -> None:
    for part in absent:
        event = ledger.erased.get(str(outs[part]["md5"]))
        if event:
            raise UsageError(f"{version} cannot be restored: its {part} was erased by event {event}")
        raise IntegrityError(f"{version} cannot be restored: its {part} is not whole on the store: restore the store")
