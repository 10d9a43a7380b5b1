"""What the records of versions say, as those ask who explain them: by name, by parent, dotted, by path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cl_steps.documents import Document, Json
from cl_steps.errors import UsageError
from cl_steps.ledger.names import version_file
from cl_steps.ledger.record import Record
from cl_steps.repository.mainline import Mainline
from cl_steps.store.pointers import lock_outs

LEARN_NOTHING_OLD = ("finetune",)
"""Methods of before `update` reported it that neither replay nor have a teacher."""
HERE = ("image", "devices", "python", "platform", "machine")
"""Of a record's environment: what is no library."""


def records_of(main: Mainline) -> dict[str, Record]:
    """Every version's record by its name, in the order of their numbers."""
    return {record.version: record for record in main.records()}


def resolve(records: Mapping[str, Record], version: str) -> str:
    """The name of a version that is there; raises UsageError where it is not."""
    version_file(version)
    if version not in records:
        raise UsageError(f"there is no version {version!r}: `retain versions` lists them")
    return version


def parameters(record: Record) -> dict[str, Any]:
    """A version's parameters, dotted, those of its own run on top of the file's."""
    return {**flat(record.parameters.file), **record.parameters.set}


@dataclass(frozen=True)
class Learning:
    """How a version was learnt: whether its training replayed what was kept, and whether its parent taught it."""

    replayed: bool
    taught: bool


def learning_of(record: Record) -> Learning:
    """As the report of `update` says; reports of before do not, and there the method's name tells."""
    if record.parent is None:
        return Learning(replayed=False, taught=False)
    figures = record.figures("update")
    if "replayed" in figures:
        return Learning(bool(figures["replayed"]), figures.get("taught_by") is not None)
    if record.rebase:
        return Learning(replayed=True, taught=False)
    method = str(parameters(record).get("update.method", "replay_distill"))
    return Learning(method not in LEARN_NOTHING_OLD, "distill" in method)


def flat(values: Json, prefix: str = "") -> dict[str, Any]:
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
    found = record.environment
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
    outs = {path: str(out["md5"]) for path, out in lock_outs(record.stages).items() if "md5" in out}
    return {**outs, **{f"state/{name}": md5 for name, md5 in record.digests.state.items()}}
