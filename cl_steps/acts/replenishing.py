"""Filling up what a withdrawal left free: a full replay buffer or reference would hold others in its place.

Both are bottom-k samples (`data/replay.py`, `stats/items.py`): what they would hold had an asset never come follows
from the names of everything that was learnt. What is not in them any more is fetched from where it came: the image from
its intake, its features from the figures of the night that learnt it. What the line began with and dropped at once was
never stored, and stays out.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cl_steps.acts.purge import as_written, assets_in, take_out
from cl_steps.data.manifests import KNOWN, Manifests
from cl_steps.data.replay import select
from cl_steps.data.shards import Asset, write_dataset, write_table
from cl_steps.ledger.ancestors import chain
from cl_steps.ledger.fold import Ledger
from cl_steps.ledger.record import Record
from cl_steps.store.objects import Store
from cl_steps.store.pointers import Out

FEATURES = "features.parquet"
FIGURES = "tonight/drift/figures"


@dataclass(frozen=True)
class LearntHistory:
    """What a champion learnt, but for the assets in `gone`, and where it lies."""

    champion: str
    records: Sequence[Record]
    ledger: Ledger
    store: Store
    manifests: Manifests
    reference: str
    gone: frozenset[str]

    def learnt(self) -> pa.Table:
        """The manifest rows of everything that the champion learnt."""
        found = self.manifests.read(self.reference, KNOWN)
        assert found is not None, "the state's reference is on the store: a promotion asked for it"
        return found.filter(pc.invert(pc.is_in(found["sha256"], pa.array(sorted(self.gone), pa.string()))))

    def seed(self) -> int:
        """The line's, as the champion's run had it."""
        record = next(record for record in self.records if record.version == self.champion)
        parameters = record.parameters
        return int(parameters.set.get("seed", parameters.file["seed"]))

    def first(self, part: str) -> str:
        """A part (md5) of the state that the line began with, or what stands for it."""
        record = next(record for record in self.records if not record.parent)
        return self.ledger.standing(record.digests.state[part])["md5"]


def replay_without(history: LearntHistory, name: str) -> Out:
    """Store the replay buffer `name` (md5) as it would be without the assets that are gone."""
    before, first = (history.manifests.read(md5) for md5 in (name, history.first("replay")))
    assert before is not None, "the state is on the store"
    began = set(first["sha256"].to_pylist()) if first is not None else set()
    learnt = history.learnt()
    rows = zip(learnt["sha256"].to_pylist(), learnt["run"].to_pylist(), strict=True)
    homes = {sha: _home(history, run) for sha, run in rows if run in history.ledger.intakes or sha in began}
    there = learnt.filter(pc.is_in(learnt["sha256"], pa.array(sorted(homes), pa.string())))
    wanted: set[str] = set()
    for split in ("train", "probe"):
        room = pc.sum(pc.equal(before["split"], split)).as_py() or 0
        wanted |= set(select(there.filter(pc.equal(there["split"], split)), room, history.seed())["sha256"].to_pylist())
    buffered = set(before["sha256"].to_pylist())
    return _stored(history, wanted, {name, *(homes[sha] for sha in wanted - buffered)})


def _home(history: LearntHistory, run: str) -> str:
    """The stored folder with the assets of an intake, or with those that the line began with."""
    return history.ledger.intakes[run].md5 if run in history.ledger.intakes else history.first("replay")


def _stored(history: LearntHistory, wanted: set[str], sources: Iterable[str]) -> Out:
    """Store the dataset of the wanted assets, found in those folders."""
    assets: dict[str, Asset] = {}
    with TemporaryDirectory(prefix="retain-") as scratch:
        for source in sorted(sources):
            for path, md5 in (history.store.listing(source) or {}).items():
                if path.rpartition("/")[2].startswith("shard-"):
                    history.store.fetch(md5, Path(scratch) / "source")
                    found = assets_in(Path(scratch) / "source")
                    assets |= {asset.sha256: asset for asset in found if asset.sha256 in wanted}
        write_dataset(Path(scratch) / "dataset", assets.values())
        return history.store.put(Path(scratch) / "dataset")


def reference_without(history: LearntHistory, name: str) -> Out:
    """Store the reference `name` (md5) as it would be without the assets that are gone."""
    with TemporaryDirectory(prefix="retain-") as scratch:
        folder = Path(scratch)
        listing = history.store.listing(name) or {}
        for path, md5 in listing.items():
            history.store.fetch(md5, folder / path)
        before = _items(folder / FEATURES)
        take_out(folder, history.gone)
        kept = _items(folder / FEATURES)
        absent = _wanted(history, before) - set(kept["sha256"].to_pylist())
        if absent:
            found = (_from(history, version, names) for version, names in _learners(history, absent).items())
            more = [table for table in found if table is not None]
            write_table(folder / FEATURES, as_written(pa.concat_tables([kept, *more]).sort_by("sha256")))
        return history.store.put(folder)


def _wanted(history: LearntHistory, before: pa.Table) -> set[str]:
    """The names that fill the reference: of each slice as many as before, those of the smallest hashes."""
    learnt, seed = history.learnt(), history.seed()
    ranked: dict[str, list[tuple[bytes, str]]] = defaultdict(list)
    for name, slice_name in zip(learnt["sha256"].to_pylist(), learnt["slice"].to_pylist(), strict=True):
        ranked[slice_name].append((hashlib.sha256(f"{seed}:{name}".encode()).digest(), name))
    room: Mapping[str, int] = {v["values"]: v["counts"] for v in pc.value_counts(before["slice"]).to_pylist()}
    return {name for own, names in ranked.items() for _, name in sorted(names)[: room.get(own, 0)]}


def _learners(history: LearntHistory, names: set[str]) -> dict[str, set[str]]:
    """Which version of the champion's line learnt which of the assets; v1 what the line began with."""
    lineage, learnt = chain(history.records, history.champion), history.learnt()
    found: dict[str, set[str]] = defaultdict(set)
    for name, run in zip(learnt["sha256"].to_pylist(), learnt["run"].to_pylist(), strict=True):
        if name in names:
            intake = history.ledger.intakes.get(run)
            own = [version for version in lineage if intake and version in intake.versions]
            found[own[0] if own else lineage[0]].add(name)
    return found


def _from(history: LearntHistory, version: str, names: set[str]) -> pa.Table | None:
    """The features of assets as the night that made a version measured them."""
    record = next(record for record in history.records if record.version == version)
    outs = record.stages.get("drift", {}).get("outs", [])
    source = next((out["md5"] for out in outs if out["path"] == FIGURES), None)
    md5 = history.ledger.standing(source)["md5"] if source else history.first("reference")
    listing = history.store.listing(md5) or {}
    if FEATURES not in listing:
        return None
    with TemporaryDirectory(prefix="retain-") as scratch:
        history.store.fetch(listing[FEATURES], Path(scratch) / FEATURES)
        table = _items(Path(scratch) / FEATURES)
    return table.filter(pc.is_in(table["sha256"], pa.array(sorted(names), pa.string())))


def _items(path: Path) -> pa.Table:
    return pq.ParquetFile(path).read()
