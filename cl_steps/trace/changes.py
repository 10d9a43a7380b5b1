"""What changed from one version to another, as one document: data, parameters, code, environment, metrics.

Versions need not be parent and child: each has learnt what the versions on its chain of parents brought, and the
difference of these is what changed. Manifests are read from the store; what is no longer there is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cl_steps.config import Params
from cl_steps.data.manifests import Manifests
from cl_steps.documents import Document, Json
from cl_steps.ledger.ancestors import nearest_first
from cl_steps.ledger.record import Record
from cl_steps.repository.mainline import Mainline
from cl_steps.trace.versions import (
    environment,
    flat,
    parameters,
    records_of,
    resolve,
    stored,
)

EXAMPLES = 5
NAMES = ("sha256", "text", "slice", "split")
Row = Json
Figures = Mapping[str, Mapping[str, float | None]]


def changes(main: Mainline, manifests: Manifests, old: str, new: str) -> Document:
    """What changed from `old` to `new`; `champion` is taken for either.

    Raises:
        UsageError: there is no such version.
        IntegrityError, Unavailable: as `Manifests.read`.
    """
    records = records_of(main)
    pair = _Pair(records, manifests, named(main, records, old), named(main, records, new))
    before, after = records[pair.old], records[pair.new]
    return {
        "old": pair.old,
        "new": pair.new,
        "created": {"old": before.created, "new": after.created},
        "relation": pair.relation,
        "base": _same(before.digests.base, after.digests.base),
        "data": {
            "learnt": pair.learnt(pair.fresh, pair.known),
            "no_longer": pair.learnt(pair.known, pair.fresh),
            "replay": _moved(pair.rows(before, "replay"), pair.rows(after, "replay")),
            "evaluation": _moved(pair.rows(before, "global_eval"), pair.rows(after, "global_eval")),
            "slices": _sets(before.slices, after.slices),
            "not_in_the_store": pair.gone,
        },
        "parameters": _different(parameters(before), parameters(after)),
        "code": _same(before.code, after.code),
        **_environment(before, after),
        "digests": _different(_state(before), _state(after)),
        "metrics": _metrics(*_measured(before, after)),
        "paired": night_of_both(before, after) is not None,
        "margins": _margins(after),
    }


@dataclass
class _Pair:
    """Two versions, and what their chains of parents brought."""

    records: Mapping[str, Record]
    manifests: Manifests
    old: str
    new: str
    gone: list[str] = field(default_factory=list)

    @cached_property
    def known(self) -> dict[str, Row]:
        """What the old version has learnt that the other one's common parents had not brought, by SHA-256."""
        return self._brought(self.old, self.new)

    @cached_property
    def fresh(self) -> dict[str, Row]:
        """The same of the new one."""
        return self._brought(self.new, self.old)

    @property
    def relation(self) -> str:
        """How the two stand to each other, in words."""
        mine, theirs = self._line(self.new), self._line(self.old)
        if self.old in mine:
            return f"{self.new} descends from {self.old}, {_steps(mine.index(self.old))}"
        if self.new in theirs:
            return f"{self.old} descends from {self.new}, {_steps(theirs.index(self.new))}"
        shared = next((name for name in mine if name in theirs), None)
        return f"they share {shared} as their last common parent" if shared else "they have no common parent"

    def rows(self, record: Record, part: str) -> dict[str, Row]:
        """A part of a version's state, by SHA-256; empty, and named, where the store no longer holds it."""
        return self._read(record.version, part, stored(record).get(f"state/{part}"))

    def learnt(self, one: Mapping[str, Row], other: Mapping[str, Row]) -> Document:
        """The training images of one side that the other lacks."""
        rows = [row for name, row in one.items() if name not in other and row["split"] == "train"]
        return _counted(rows)

    def _brought(self, version: str, without: str) -> dict[str, Row]:
        shared = self._line(without)
        own = [name for name in self._line(version) if name not in shared]
        found: dict[str, Row] = {}
        for name in own:
            found |= self._read(name, "batch", stored(self.records[name]).get("tonight/batch"))
        return found

    def _line(self, version: str) -> list[str]:
        return nearest_first(self.records.values(), version)

    def _read(self, version: str, part: str, md5: str | None) -> dict[str, Row]:
        if md5 is None:
            return {}
        table = self.manifests.read(md5, columns=NAMES)
        if table is None:
            self.gone.append(f"{part} of {version}")
            return {}
        return {str(row["sha256"]): row for row in table.to_pylist()}


def named(main: Mainline, records: Mapping[str, Record], version: str) -> str:
    """The name of a version, or of the champion; raises UsageError where there is no such version."""
    name = main.champion().version if version == "champion" else version
    return resolve(records, name)


def _counted(rows: Iterable[Row]) -> Document:
    """How many, by slice, and the first few."""
    found = sorted(rows, key=lambda row: str(row["sha256"]))
    slices = Counter(str(row["slice"]) for row in found)
    examples = [{key: row[key] for key in NAMES} for row in found[:EXAMPLES]]
    return {"assets": len(found), "slices": dict(sorted(slices.items())), "examples": examples}


def _moved(before: Mapping[str, Row], after: Mapping[str, Row]) -> Document:
    """What came into a set and what went out of it."""
    return {
        "old": len(before),
        "new": len(after),
        "in": _counted(row for name, row in after.items() if name not in before),
        "out": _counted(row for name, row in before.items() if name not in after),
    }


def _sets(before: Iterable[str], after: Iterable[str]) -> Document:
    return {"added": sorted(set(after) - set(before)), "removed": sorted(set(before) - set(after))}


def _different(before: Json, after: Json) -> list[Document]:
    """The keys whose values are not the same; None where there is none."""
    keys = sorted({*before, *after})
    return [
        {"key": key, "old": before.get(key), "new": after.get(key)}
        for key in keys
        if before.get(key) != after.get(key) or (key in before) != (key in after)
    ]


def _one(before: Json, after: Json, key: str) -> Document:
    return _same(before.get(key), after.get(key))


def _same(before: object, after: object) -> Document:
    return {"old": before, "new": after, "same": before == after}


def _environment(before: Record, after: Record) -> Document:
    one, other = environment(before), environment(after)
    same = {key: _one(one, other, key) for key in ("image", "python", "devices", "machine")}
    return {**same, "libraries": _different(one["libraries"], other["libraries"])}


def _state(record: Record) -> dict[str, str]:
    """The digests of what a version is made of."""
    named = {"base": record.digests.base, "extractor": record.digests.extractor}
    state = {key.removeprefix("state/"): md5 for key, md5 in stored(record).items() if key.startswith("state/")}
    return {**state, **named}


def night_of_both(before: Record, after: Record) -> Record | None:
    """Of a parent and its child, the child: both were measured, on the same images and seeds, in its night."""
    if after.parent == before.version:
        return after
    return before if before.parent == after.version else None


def _measured(before: Record, after: Record) -> tuple[Figures, Figures]:
    """The figures of both, of a parent and its child those of the child's night."""
    judge = night_of_both(before, after)
    if judge is None:
        return before.slices, after.slices
    slices = judge.figures("evaluate").get("slices") or {}
    models = ("champion", "candidate") if judge is after else ("candidate", "champion")
    old, new = (
        {name: {m: values.get(model) for m, values in metrics.items()} for name, metrics in slices.items()}
        for model in models
    )
    return old, new


def _metrics(before: Figures, after: Figures) -> list[Document]:
    """Every slice's figures, side by side; None where a version has none."""
    keys = sorted({(name, metric) for side in (before, after) for name, metrics in side.items() for metric in metrics})
    found = []
    for name, metric in keys:
        old, new = ((side.get(name) or {}).get(metric) for side in (before, after))
        apart = new - old if old is not None and new is not None else None
        found.append({"slice": name, "metric": metric, "old": old, "new": new, "difference": apart})
    return found


def _margins(record: Record) -> dict[str, Any]:
    """How far each metric might move in one night, by the version's own parameters."""
    start, every = "gate.nightly.", {**flat(Params().model_dump()), **parameters(record)}
    return {key.removeprefix(start): value for key, value in every.items() if key.startswith(start)}


def _steps(count: int) -> str:
    return "its parent" if count == 1 else f"{count} versions later"
