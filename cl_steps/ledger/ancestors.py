"""Which version came from which: the one walk over parents, as the records on main say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from cl_steps.ledger.names import existing
from cl_steps.ledger.record import Record


def walk(parents: Mapping[str, str | None], version: str) -> Iterator[str]:
    """A version and all that it came from, the nearest first; it ends where a parent is none of `parents`."""
    seen: set[str] = set()
    at: str | None = version
    while at is not None and at in parents and at not in seen:
        seen.add(at)
        yield at
        at = parents[at]


def chain(records: Iterable[Record], version: str) -> list[str]:
    """A version and all that it came from, v1 first; raises UsageError where there is no such version."""
    return nearest_first(records, version)[::-1]


def nearest_first(records: Iterable[Record], version: str) -> list[str]:
    """The same, the version itself first and v1 last."""
    parents = {record.version: record.parent for record in records}
    return list(walk(parents, existing(version, parents)))


def offspring(records: Iterable[Record], versions: Collection[str]) -> list[str]:
    """Those of the records' versions that came from one of `versions`, which are not among them; oldest first."""
    found, born = set(versions), []
    # A parent's record comes before its children's.
    for record in records:
        if record.parent in found:
            found.add(record.version)
        if record.version in found and record.version not in versions:
            born.append(record.version)
    return born
