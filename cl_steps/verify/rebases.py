"""Whether a new base, of a run or of a version, is one that a person asked for before, on main."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import partial

from cl_steps.errors import IntegrityError
from cl_steps.ledger.events import RebaseEvent
from cl_steps.ledger.fold import Ledger
from cl_steps.ledger.lasting import Rebased
from cl_steps.ledger.record import Record
from cl_steps.records.signer import signature_path
from cl_steps.repository.mainline import Mainline
from cl_steps.verify.authenticity import Trust, check_act
from cl_steps.verify.evidence import Evidence, Version
from cl_steps.verify.findings import Finding
from cl_steps.verify.signers import ASK, insist


def asked_for(main: Mainline, run: str, trust: Trust | None) -> RebaseEvent:
    """The act of the person who asked for a run's new base, if it is there and, with `trust`, its signature counts.

    Raises:
        IntegrityError: there is none, or it does not count.
    """
    asked = main.ledger().rebases.get(run)
    if asked is None:
        raise IntegrityError(f"main holds no act of a person for the new base of run {run}: {ASK}")
    if trust:
        _check_signed(main, trust, f"events/{asked.id}.json", datetime.fromisoformat(asked.at))
    return asked


def _check_signed(main: Mainline, trust: Trust, path: str, made: datetime) -> None:
    content, signature = main.read(path), main.read(signature_path(path))

    def begun() -> bool:
        return content is None or any(name.endswith(".sig") for name in main.blobs("versions"))

    check = partial(check_act, trust, path, content or b"", made=made)
    insist(trust, path, signature_path(path), signature if content is not None else None, made, begun, check)


def check_rebases(book: Evidence, ledger: Ledger, versions: Iterable[Version]) -> Iterator[Finding]:
    """Each rebase among the versions follows from its act; `ledger` holds the acts that nothing speaks against.

    That no other version changes the base is `record.disagreements`, which `check_versions` asks.
    """
    for version in versions:
        record = version.record
        if record and record.rebase:
            asked = ledger.rebases.get(str(record.run))
            if why := _doubt(book, version, record, record.rebase, asked):
                yield Finding("inconsistent", f"{version.name} record", why)


def _doubt(book: Evidence, version: Version, record: Record, said: Rebased, asked: RebaseEvent | None) -> str | None:
    if asked is None or asked.id != said.event:
        return "no act of a person on main vouches for its new base"
    if book.added[f"events/{asked.id}.json"] >= book.added[version.path]:
        return "its new base was asked for only after it was made"
    if (asked.before, asked.after["md5"]) != (said.before, said.after):
        return "a person asked for another base"
    files = {path: sha for path, sha in record.files.items() if path.startswith("base/")}
    if said.after != record.digests.base or files != asked.files:
        return "its base is not the one that a person asked for"
    return None
