"""Withdrawn assets taken out of stored folders: shards, manifests, references, figures, quarantines, samples.

What is left is what a line that never saw them would have written: rows stay in their order, and the settings of
Parquet are fixed. A folder that holds none of them stays as it is, byte for byte.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cl_steps import digests
from cl_steps.data.shards import Asset, write_dataset, write_table
from cl_steps.progress import progress
from cl_steps.stats.samples import PROMPTS, forget_drawn, grids, slices_drawn
from cl_steps.store.digests import FOLDER, Listing
from cl_steps.store.objects import Store
from cl_steps.store.pointers import Out

PARTS = ("replay", "global_eval", "reference", "evaluation")
"""Parts of the state that hold assets, or name them."""
NAMING = ("sha256", "unit")
"""Columns with names of assets; in an evaluation's figures they are called units."""
AT_ONCE = 8
"""Objects that are looked into at a time."""


class Purge:
    """Folders of a store without the assets in `gone`; what was looked at once is remembered.

    A slice's samples go where they were drawn from one of `words`: captions that nothing else has.
    """

    def __init__(self, store: Store, gone: AbstractSet[str], words: AbstractSet[str] = frozenset()) -> None:
        self._store, self._gone, self._words = store, frozenset(gone), frozenset(words)
        self._holds: dict[str, bool] = {}
        self._slices: dict[str, list[str]] = {}
        self._done: dict[str, Out | None] = {}

    def affected(self, names: Iterable[str]) -> list[str]:
        """Those of the folders (md5) that hold one of the assets; folders that are not there hold none."""
        chosen = sorted(set(names))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = progress(pool.map(self.holders, chosen), len(chosen), "folders looked into")
            return [name for name, held in zip(chosen, found, strict=True) if held]

    def holders(self, name: str) -> dict[str, str]:
        """The files (path to md5) of a folder that hold, or name, one of the assets."""
        listing = self._listing(name)
        drawn = self._drawn(listing)
        return {path: md5 for path, md5 in listing.items() if path in drawn or self._is_holder(path, md5)}

    def shared(self, names: Iterable[str]) -> set[str]:
        """Pictures that go from some of the folders, and that are in other samples, too: the same bytes."""
        going, staying = set(), set()
        for name in names:
            listing, holders = self._listing(name), self.holders(name)
            going |= {listing[path] for path in self._drawn(listing) if PurePosixPath(path).name != PROMPTS}
            staying |= {md5 for path, md5 in listing.items() if path not in holders}
        return going & staying

    def loose(self, names: Iterable[str]) -> list[str]:
        """Those objects that hold one of the assets and that no folder of `names` lists: what a crash left behind."""
        listed = {md5 for name in names if name.endswith(FOLDER) for md5 in self._listing(name).values()}
        return [name for name in names if not name.endswith(FOLDER) and name not in listed and self._is_loose(name)]

    def settle(self, name: str, out: Out) -> None:
        """Say what stands for a folder, where somebody knows better."""
        self._done[name] = out

    def without(self, name: str) -> Out | None:
        """Store the folder without the assets; None where it holds none of them."""
        if name not in self._done:
            holders = self.holders(name)
            self._done[name] = self._replaced(self._listing(name), holders) if holders else None
        return self._done[name]

    def _listing(self, name: str) -> Listing:
        return self._store.listing(name) or {}

    def _is_loose(self, md5: str) -> bool:
        with self._store.stream(md5) as stream:
            if stream is None:
                return False
            if stream.read(4) == b"PAR1":
                return names_any(stream, self._gone)
            stream.seek(0)
            content = stream.read()
            return digests.sha256(content) in self._gone or bool(slices_drawn(content, self._words))

    def _drawn(self, listing: Listing) -> set[str]:
        """Each `prompts.json` that has one of the words, and the pictures beside it that were drawn from them."""
        found: set[str] = set()
        for path, md5 in listing.items() if self._words else ():
            here = PurePosixPath(path)
            if here.name == PROMPTS and (slices := self._slices_drawn(md5)):
                wanted = {PROMPTS, *grids(slices)}
                beside = (other for other in map(PurePosixPath, listing) if other.parent == here.parent)
                found |= {str(other) for other in beside if other.name in wanted}
        return found

    def _slices_drawn(self, md5: str) -> list[str]:
        if md5 not in self._slices:
            with self._store.stream(md5) as stream:
                self._slices[md5] = slices_drawn(stream.read() if stream else b"", self._words)
        return self._slices[md5]

    def _is_holder(self, path: str, md5: str) -> bool:
        if PurePosixPath(path).name in self._gone:
            return True
        if path.endswith(".parquet") and md5 not in self._holds:
            with self._store.stream(md5) as stream:
                self._holds[md5] = stream is not None and names_any(stream, self._gone)
        return path.endswith(".parquet") and self._holds[md5]

    def _replaced(self, listing: Listing, holders: Mapping[str, str]) -> Out:
        packs = {PurePosixPath(path).parent for path in holders if _is_shard(path)}
        renewed = {p for p in listing if p in holders or (_is_shard(p) and PurePosixPath(p).parent in packs)}
        with TemporaryDirectory(prefix="retain-") as scratch:
            folder = Path(scratch)
            for path in renewed:
                self._store.fetch(listing[path], folder / path)
            take_out(folder, self._gone, self._words)
            return self._store.put(folder, {path: md5 for path, md5 in listing.items() if path not in renewed})


def names_any(stream: IO[bytes], names: AbstractSet[str]) -> bool:
    """Whether a Parquet file has a row of one of these assets; only the columns with names are read."""
    file = pq.ParquetFile(stream)
    columns = [column for column in NAMING if column in file.schema_arrow.names]
    wanted = pa.array(sorted(names), pa.string())
    table = file.read(columns=columns)
    return any(pc.any(pc.is_in(table[column], wanted)).as_py() for column in columns)


def take_out(folder: Path, gone: AbstractSet[str], words: AbstractSet[str] = frozenset()) -> None:
    """Take assets out of the files in a folder, in place; the shards right in one folder must be there together."""
    for path in folder.rglob(PROMPTS):
        forget_drawn(path, words)
    shards = [path for path in folder.rglob("*.parquet") if _is_shard(path.name)]
    for pack in sorted({path.parent for path in shards}):
        _pack_anew(pack, gone)
    for path in [path for path in folder.rglob("*") if path.is_file() and not _is_shard(path.name)]:
        if path.name in gone:
            path.unlink()
        elif path.suffix == ".parquet":
            _filter(path, gone)


def _pack_anew(folder: Path, gone: AbstractSet[str]) -> None:
    draft = folder / "draft"
    before = sorted(path for path in folder.iterdir() if _is_shard(path.name))
    kept = (asset for path in before for asset in assets_in(path) if asset.sha256 not in gone)
    write_dataset(draft, kept, in_order=True)
    for path in before:
        path.unlink()
    for path in draft.iterdir():
        if _is_shard(path.name):
            path.rename(folder / path.name)
    shutil.rmtree(draft)


def assets_in(shard: Path) -> Iterator[Asset]:
    """The rows of a shard, a row group in memory at a time."""
    file = pq.ParquetFile(shard)
    for group in range(file.num_row_groups):
        for row in file.read_row_group(group).to_pylist():
            image = row.pop("image")["bytes"]
            yield Asset(**row, image=image)


def _filter(path: Path, gone: AbstractSet[str]) -> None:
    table = pq.ParquetFile(path).read()
    unwanted = pa.array(sorted(gone), pa.string())
    for column in NAMING:
        if column in table.column_names:
            table = table.filter(pc.invert(pc.is_in(table[column], unwanted)))
    write_table(path, as_written(table))


def as_written(table: pa.Table) -> pa.Table:
    """In one piece, with the schema that it was written with: Parquet gives the items of lists a name of its own."""
    types = [pa.list_(f.type.value_type) if pa.types.is_list(f.type) else f.type for f in table.schema]
    fields = [field.with_type(kind) for field, kind in zip(table.schema, types, strict=True)]
    return table.combine_chunks().cast(pa.schema(fields, metadata=table.schema.metadata))


def _is_shard(path: str) -> bool:
    name = PurePosixPath(path).name
    return name.startswith("shard-") and name.endswith(".parquet")
