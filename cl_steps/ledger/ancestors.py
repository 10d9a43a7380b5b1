"""Which version came from which: chains of parents, as the records on main say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from cl_steps.ledger.names import existing

Record = Mapping[str, Any]


def chain(records: Iterable[Record], version: str) -> list[str]:
    """A version and all that it came from, v1 first; raises UsageError where there is no such version."""
    parents = {str(record["version"]): record.get("parent") for record in records}
    found: list[str] = []
    at: str | None = existing(version, parents)
    while at in parents and at not in found:
        found.append(at)
        at = parents[at]
    return found[::-1]


def offspring(records: Iterable[Record], versions: Collection[str]) -> list[str]:
    """Those of the records' versions that came from one of `versions`, which are not among them; oldest first."""
    found = set(versions)
    # A parent's record comes before its children's.
    for record in records:
        if record.get("parent") in found:
            found.add(str(record["version"]))
    return [str(record["version"]) for record in records if record["version"] in found - set(versions)]
