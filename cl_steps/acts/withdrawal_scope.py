"""What a withdrawal is about: the images, their copies in the line, and everything that ever held them."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cl_steps import digests
from cl_steps.config import Ingest
from cl_steps.data.duplicates import near_any, prints_of
from cl_steps.data.images import inspect, quiet_pillow
from cl_steps.data.manifests import KNOWN, Manifests
from cl_steps.data.quarantine import Unusable, printable
from cl_steps.data.shards import MANIFEST_SCHEMA, SPLITS, distinct
from cl_steps.data.withdrawn import consent_ended, tombstone
from cl_steps.documents import Json
from cl_steps.errors import UsageError
from cl_steps.ledger.ancestors import offspring
from cl_steps.ledger.events import RunEvent
from cl_steps.ledger.fold import Ledger
from cl_steps.ledger.record import Record
from cl_steps.repository.mainline import Mainline
from cl_steps.store.pointers import read_dvc_file

SHA256 = re.compile(r"[0-9a-f]{64}")
BEGINNING = "init"
"""What stands for an intake in the rows of assets that the line began with."""


def rows_of_line(main: Mainline, ledger: Ledger, manifests: Manifests) -> pa.Table:
    """The manifest rows of every asset that the line ever took in, whatever became of it; those erased are gone."""
    first = next((r.digests.state.get("reference") for r in main.records() if not r.parent), None)
    now = main.read("state/reference.dvc")
    known = [md5 for md5 in (str(read_dvc_file(now)["md5"]) if now else None, first) if md5]
    tables = [manifests.read(md5, KNOWN) for md5 in known]
    tables += [manifests.read(intake.md5) for intake in ledger.intakes.values()]
    found = [table for table in tables if table is not None]
    return distinct(pa.concat_tables([MANIFEST_SCHEMA.empty_table(), *found]).combine_chunks())


def own_words(rows: pa.Table, names: AbstractSet[str]) -> set[str]:
    """The captions of these assets that no other asset has."""
    gone = pc.is_in(rows["sha256"], pa.array(sorted(names), pa.string()))
    own, others = (set(rows.filter(mask)["text"].to_pylist()) for mask in (gone, pc.invert(gone)))
    return own - others - {""}


def asset_named(what: str, ledger: Ledger, rows: pa.Table, limits: Ingest) -> dict[str, Any]:
    """The asset of an image file or a SHA-256; an image that the line never saw may be withdrawn too.

    Raises:
        UsageError: it is neither, or a SHA-256 that the line does not know.
    """
    path = Path(what)
    content = path.read_bytes() if path.is_file() else None
    name = what.lower() if content is None else digests.sha256(content)
    if known := _picked(rows, "sha256", name):
        return _entry(known[0], ledger)
    if name in ledger.tombstones:
        return dict(ledger.tombstones[name])
    if content is None:
        if SHA256.fullmatch(name):
            raise UsageError("the line never took in an image of this SHA-256: name the file itself")
        raise UsageError(f"{printable(what)!r} is neither an image file nor a SHA-256")
    try:
        with quiet_pillow():
            facts = inspect(content, limits)
    except Unusable as fault:
        raise UsageError(f"{printable(what)!r} cannot be withdrawn: {fault.reason}") from fault
    return {**tombstone({"sha256": name, **vars(facts)}), "intake": None, "split": None, "copy": False}


def assets_of_source(source: str, ledger: Ledger, rows: pa.Table) -> list[dict[str, Any]]:
    """All assets of a source, those withdrawn by that name before too; raises UsageError where there are none."""
    found = [_entry(row, ledger) for row in _picked(rows, "source", source)]
    names = {asset["sha256"] for asset in found}
    before = (asset for event in ledger.withdrawals if event.source == source for asset in event.assets)
    found += [dict(asset) for asset in before if asset["sha256"] not in names]
    if not found:
        raise UsageError(f"the line holds no image of the source {printable(source)!r}")
    return found


def assets_of_ended_consent(day: str, ledger: Ledger, rows: pa.Table) -> list[dict[str, Any]]:
    """All assets that are still in use and whose consent ended before a day; raises UsageError where there are none."""
    ended = rows.filter(pa.array(consent_ended(rows, day))).to_pylist()
    found = [_entry(row, ledger) for row in ended if row["sha256"] not in ledger.tombstones]
    if not found:
        raise UsageError(f"of no image that the line holds did consent end before {day}")
    return found


def with_copies(assets: Sequence[Json], ledger: Ledger, rows: pa.Table, rmse: float) -> list[dict[str, Any]]:
    """The assets and their near-duplicates among `rows`, and theirs, until none is left; sorted by SHA-256."""
    names = rows["sha256"].to_pylist()
    found = {str(asset["sha256"]): dict(asset) for asset in assets}
    every = prints_of(rows["dhash"].to_pylist(), rows["thumbnail"].to_pylist())
    fresh = list(found.values())
    while fresh:
        new = np.array([name not in found for name in names], dtype=np.bool_)
        prints = prints_of((bytes.fromhex(a["dhash"]) for a in fresh), (_thumbnail(a) for a in fresh))
        near = new & near_any(every, prints, rmse) if len(every) else new
        fresh = [{**_entry(row, ledger), "copy": True} for row in rows.filter(pa.array(near)).to_pylist()]
        found |= {asset["sha256"]: asset for asset in fresh}
    return [found[name] for name in sorted(found)]


def touched(records: Sequence[Record], ledger: Ledger, assets: Iterable[Json], manifests: Manifests) -> dict[str, Any]:
    """Everything that ever held the assets, as the report of a withdrawal says it.

    `intakes` and `learnt` (by version and split) count assets; `clean` is the last version before one was learnt;
    `runs` learnt or tried them and made no version; `descends` are the versions that came from one that learnt them;
    `replay`, `evaluation` and `reference` are the versions whose buffer, evaluation set or reference held them.
    """
    here = [asset for asset in assets if asset["intake"]]
    intakes = Counter(asset["intake"] for asset in here)
    trace = Trace()
    for (intake, split, until), count in Counter((a["intake"], a["split"], _until(a, ledger)) for a in here).items():
        own = [r.version for r in records if intake in _members(r, ledger) and r.created <= until]
        trace.add(own, offspring(records, own), split, count)
        made = {record.version for record in records if record.created <= until}
        trace.held[split] |= {*own, *offspring(records, own)} & made
    names = {asset["sha256"] for asset in here}
    buffered = trace.held["train"] | trace.held["probe"]
    return {
        "intakes": dict(sorted(intakes.items())),
        "runs": {run: event.outcome for run, event in ledger.runs.items() if _tried(event, intakes)},
        "learnt": {r.version: dict(trace.learnt[r.version]) for r in records if r.version in trace.learnt},
        "clean": next((r.parent for r in records if trace.taught(r.version)), None),
        "descends": [r.version for r in records if r.version in trace.descends - trace.learnt.keys()],
        "replay": [r.version for r in records if r.version in buffered and _in_replay(r, names, manifests)],
        "evaluation": [r.version for r in records if r.version in trace.held["evaluation"]],
        "reference": [r.version for r in records if r.version in buffered | trace.held["evaluation"]],
    }


@dataclass
class Trace:
    """What was found so far: versions that learnt assets (a count a split), came from such a one, or held them."""

    learnt: dict[str, Counter[str]] = field(default_factory=dict)
    descends: set[str] = field(default_factory=set)
    held: dict[str, set[str]] = field(default_factory=lambda: {split: set() for split in SPLITS})

    def add(self, own: Iterable[str], later: Iterable[str], split: str, count: int) -> None:
        """Enter assets of one split that the versions `own` learnt, from which those of `later` came."""
        for version in own:
            self.learnt.setdefault(version, Counter())[split] += count
        self.descends |= set(later)

    def taught(self, version: str) -> bool:
        """Whether an asset had a say in the version's weights; those of the evaluation set had none."""
        return bool({"train", "probe"} & self.learnt.get(version, {}).keys())


def _until(asset: Json, ledger: Ledger) -> str:
    """When an asset was withdrawn first: what was made after that does not hold it. Later than all, if never."""
    named = (e.at for e in ledger.withdrawals if any(a["sha256"] == asset["sha256"] for a in e.assets))
    return str(next(named, "9999"))


def _members(record: Record, ledger: Ledger) -> set[str]:
    """The intakes that a version learnt; what is in none was there when the line began."""
    event = ledger.runs.get(str(record.run))
    return set(event.members) if event else {BEGINNING}


def _tried(event: RunEvent, intakes: Mapping[str, int]) -> bool:
    return event.outcome != "promoted" and not intakes.keys().isdisjoint(event.members)


def _in_replay(record: Record, names: set[str], manifests: Manifests) -> bool:
    found = manifests.read(record.digests.state["replay"], columns=["sha256"])
    return found is not None and not names.isdisjoint(found["sha256"].to_pylist())


def _entry(row: Json, ledger: Ledger) -> dict[str, Any]:
    intake = row["run"] if row["run"] in ledger.intakes else BEGINNING
    return {**tombstone(row), "intake": intake, "split": row["split"], "copy": False}


def _picked(rows: pa.Table, column: str, value: str) -> list[dict[str, Any]]:
    return list(rows.filter(pc.equal(rows[column], value)).to_pylist())


def _thumbnail(asset: Json) -> bytes:
    return base64.b64decode(asset["thumbnail"])
