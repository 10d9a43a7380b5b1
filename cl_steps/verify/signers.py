"""Who signed what: every version, its provenance, and every act of a person; and what should be signed and is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from cl_steps.errors import IntegrityError
from cl_steps.ledger.events import Act, Event, RunEvent, event_of
from cl_steps.ledger.fold import Ledger, fold
from cl_steps.ledger.record import Record
from cl_steps.ledger.schemas import event_fault
from cl_steps.records.signer import provenance_path, signature_path
from cl_steps.verify.authenticity import Doubt, Trust, check_act, check_provenance, check_version
from cl_steps.verify.evidence import Evidence
from cl_steps.verify.findings import Finding

ASK = "`retain verify` says what else is not as it should be"
SignatureCheck = Callable[[bytes], None]
"""Raises Doubt where a signature does not count."""

LATE = "it has no signature, and was made when a trusted key counted already (its `from` says since when)"


@dataclass(frozen=True)
class Signed:
    """Something that is signed, or should be: what it is called, its files, when it was made, and how it is checked."""

    where: str
    path: str
    signature: str
    made: datetime
    check: Callable[[Trust, bytes], None]


@dataclass(frozen=True)
class Seen:
    """The findings about signatures, by the path of what is signed (a version's record, an event)."""

    findings: Mapping[str, list[Finding]]

    def vouched(self, path: str) -> bool:
        """Whether nothing speaks against it."""
        return not any(finding.fault for finding in self.findings.get(path, ()))


def read_events(book: Evidence) -> tuple[dict[str, Event], list[Finding]]:
    """Every event of the right shape, by its path, and what is wrong with the others."""
    events, findings = {}, []
    for path in book.below("events", ".json"):
        try:
            document = json.loads(book.files[path])
            fault = event_fault(document)
        except (ValueError, RecursionError):
            document, fault = {}, "it is no JSON"
        if not fault and path != f"events/{document.get('id') or path[7:-5]}.json":
            fault = f"it says that it is {document['id']}"
        if fault:
            findings.append(Finding("corrupt", path, fault))
        else:
            events[path] = event_of(document)
    return events, findings


def check_signatures(book: Evidence, events: Mapping[str, Event]) -> Seen:
    """Check every signature, if anybody is trusted; what came after the first right one must have one.

    "After" is by main's history and not by what a file says of itself: whoever forges one may date it back.
    """
    if book.trust is None:
        return Seen({})
    found: dict[str, list[Finding]] = {}
    begun, things = False, [*_versions(book), *_acts(book, events)]
    for thing in sorted(things, key=lambda thing: (book.added[thing.path], thing.path)):
        finding = _check(book, thing, begun)
        begun = begun or finding is None
        found.setdefault(thing.path, []).extend([finding] if finding else [])
    return Seen(found)


def vouched_ledger(events: Mapping[str, Event], seen: Seen) -> Ledger:
    """The ledger of the events that nothing speaks against: a forged one excuses nothing."""
    return fold(event for path, event in sorted(events.items()) if seen.vouched(path))


def _versions(book: Evidence) -> Iterator[Signed]:
    for version in book.versions.values():
        if version.record:
            made = datetime.fromisoformat(version.record.created)
            checks = {"signature": check_version, "provenance": check_provenance}
            paths = {"signature": signature_path(version.path), "provenance": provenance_path(version.path)}
            for name, check in checks.items():
                call = partial(_check_version, check, version.record, version.content)
                yield Signed(f"{version.name} {name}", version.path, paths[name], made, call)


def _acts(book: Evidence, events: Mapping[str, Event]) -> Iterator[Signed]:
    for path, event in events.items():
        if isinstance(event, Act) and not isinstance(event, RunEvent):
            made = datetime.fromisoformat(event.at)
            yield Signed(path, path, signature_path(path), made, partial(_check_act, path, book.files[path], made))


def _check_version(
    check: Callable[[Trust, Record, bytes, bytes], None], record: Record, content: bytes, trust: Trust, signature: bytes
) -> None:
    check(trust, record, content, signature)


def _check_act(path: str, content: bytes, made: datetime, trust: Trust, signature: bytes) -> None:
    check_act(trust, path, content, signature, made)


def _check(book: Evidence, thing: Signed, begun: bool) -> Finding | None:
    assert book.trust is not None
    signature = book.files.get(thing.signature)
    if signature is None:
        return unsigned(book.trust, thing.where, thing.made, begun)
    try:
        thing.check(book.trust, signature)
    except Doubt as doubt:
        return Finding(doubt.kind, thing.where, str(doubt))
    return None


def insist(
    trust: Trust,
    what: str,
    path: str,
    signature: bytes | None,
    made: datetime,
    begun: Callable[[], bool],
    check: SignatureCheck,
) -> None:
    """Before something is used: its signature, the file `path`, counts, or may be missing as `unsigned` says.

    Whether signatures had `begun` is asked only where it is missing.

    Raises:
        IntegrityError: neither is so.
    """
    if signature is None:
        if unsigned(trust, what, made, begun()).fault:
            raise IntegrityError(f"{path} is not there, and {what} should be signed: {ASK}")
        return
    try:
        check(signature)
    except Doubt as doubt:
        raise IntegrityError(f"{path} does not count: {doubt}; {ASK}") from doubt


def unsigned(trust: Trust, where: str, made: datetime, begun: bool) -> Finding:
    """What to say of something without a signature; `begun` says whether signatures had begun by then."""
    if begun or made >= trust.begins:
        return Finding("unsigned", where, "it has no signature, and what came before it has" if begun else LATE)
    return Finding("unsigned", where, "it was made before the first trusted key", fault=False)
