"""What the records of versions say, as those ask who explain them: by name, by parent, dotted, by path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cl_steps.errors import UsageError
from cl_steps.ledger import ancestors as descent
from cl_steps.ledger.names import version_file
from cl_steps.repository.mainline import Mainline
from cl_steps.store.pointers import lock_outs

Document = dict[str, Any]
Record = Mapping[str, Any]

HERE = ("image", "devices", "python", "platform", "machine")
"""Of a record's environment: what is no library."""


def records_of(main: Mainline) -> dict[str, Record]:
    """Every version's record by its name, in the order of their numbers."""
    return {str(record["version"]): record for record in sorted(main.records(), key=lambda r: int(r["version"][1:]))}


def resolve(records: Mapping[str, Record], version: str) -> str:
    """The name of a version that is there; raises UsageError where it is not."""
    version_file(version)
    if version not in records:
        raise UsageError(f"there is no version {version!r}: `retain versions` lists them")
    return version


def chain(records: Mapping[str, Record], version: str) -> list[str]:
    """A version's parents, the nearest first; v1, which has none, is the last."""
    return descent.chain(records.values(), version)[-2::-1]


def parameters(record: Record) -> dict[str, Any]:
    """A version's parameters, dotted, those of its own run on top of the file's."""
    given = record.get("parameters") or {}
    return {**flat(given.get("file") or {}), **(given.get("set") or {})}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return found


def environment(record: Record) -> Document:
    """Image, libraries and machine of a version."""
    found = record.get("environment") or {}
    libraries = {name: value for name, value in found.items() if name not in HERE}
    machine = " ".join(str(found[key]) for key in ("platform", "machine") if found.get(key))
    return {
        "image": found.get("image") or None,
        "python": found.get("python"),
        "libraries": dict(sorted(libraries.items())),
        "devices": list(found.get("devices") or ()) or ["cpu"],
        "machine": machine or None,
    }


def stored(record: Record) -> dict[str, str]:
    """The digests of all that a version's record names on the store, by path."""
    outs = {path: str(out["md5"]) for path, out in lock_outs(record.get("stages") or {}).items() if "md5" in out}
    state = (record.get("digests") or {}).get("state") or {}
    return {**outs, **{f"state/{name}": str(md5) for name, md5 in state.items()}}
