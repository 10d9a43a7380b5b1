"""Pictures and captions as the model reads them, each encoded once for a base, whatever the number of nights.

What is encoded lies in packs on the disk (`models.packs`), in which the steps of training find it again; where the line
has a place for what may vanish, the packs stay there, and the next night encodes only what it has not seen. Of several
processes on a node each encodes its share.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL.Image import Image
from torch import Tensor

from cl_steps.data.shards import Asset, batched, iter_assets, read_manifest
from cl_steps.learning.pools import Pool
from cl_steps.learning.processes import Processes
from cl_steps.models.captions import caption_name
from cl_steps.models.model import Denoiser
from cl_steps.models.packs import Packs
from cl_steps.models.watching import Size
from cl_steps.progress import progress
from cl_steps.store.places import Place

MAX_DECODERS = 8
Item = TypeVar("Item")
Split = tuple[Path, str]
"""A dataset folder, and which split of it."""


@dataclass(frozen=True)
class PackedLatents:
    """The latents of items, read from packs; see `pools.Latents`."""

    packs: Packs
    names: Sequence[str]

    def __getitem__(self, place: int) -> Tensor:
        """Of one item."""
        return self.packs[self.names[place]]["latents"]


def encoder(denoiser: Denoiser, processes: Processes, place: Place | None, scratch: Path) -> Encoder:
    """What encodes into `place`, or, where that is not on this machine, into `scratch` and there.

    `scratch` is a folder of this node, the same for all its processes.
    """
    folder, away = (Path(place.root), None) if place and place.is_local else (scratch, place)
    # The first process of a node fetches, checks and keeps for all of them.
    packs = None if processes.here[0] else Packs(folder, away)
    processes.any(False)
    packs = packs or Packs(folder, check=False)
    denoiser.captions.kept = packs
    return Encoder(denoiser, packs, processes)


@dataclass(frozen=True)
class Encoder:
    """Encodes what is not in the packs yet."""

    denoiser: Denoiser
    packs: Packs
    processes: Processes

    def pools(self, splits: Sequence[Split]) -> list[Pool]:
        """One pool a split, sorted by SHA-256; what the packs hold of other pictures and captions is let go.

        Raises:
            IntegrityError: as `iter_assets` does.
        """
        rows = [_rows(self.denoiser, folder, split) for folder, split in splits]
        pictures = {row.name: row for some in rows for row in some}
        captions = {caption_name(text): text for text in ("", *(row.text for some in rows for row in some))}
        self._encode_pictures(splits, [row for name, row in pictures.items() if name not in self.packs])
        self.denoiser.keep_prompts(self._share([text for name, text in captions.items() if name not in self.packs]))
        self.packs.flush()
        self.processes.any(False)
        self.packs.look()
        if not self.processes.here[0]:
            self.packs.only({*pictures, *captions})
        return [_pool(self.packs, some) for some in rows]

    def _share(self, items: Sequence[Item]) -> Sequence[Item]:
        number, count = self.processes.here
        return items[number::count]

    def _encode_pictures(self, splits: Sequence[Split], missing: Sequence[Row]) -> None:
        own = {row.sha256: row for row in self._share(missing)}
        if not own:
            return
        assets = (asset for folder, split in splits for asset in iter_assets(folder, split, own.keys()))
        waiting: dict[Size, list[tuple[str, Image]]] = {}
        for row, image in _decoded(progress(assets, len(own), "update: encode pictures"), own):
            some = waiting.setdefault(row.size, [])
            some.append((row.name, image))
            if len(some) == self.denoiser.encoded_at_once:
                self._encode(row.size, waiting.pop(row.size))
        for size, some in waiting.items():
            self._encode(size, some)

    def _encode(self, size: Size, some: list[tuple[str, Image]]) -> None:
        latents = self.denoiser.at(size).encode_images([image for _, image in some])
        for (name, _), own in zip(some, latents, strict=True):
            self.packs[name] = {"latents": own}


@dataclass(frozen=True)
class Row:
    """What of an asset's row the learner needs, and the size at which it is learnt."""

    sha256: str
    text: str
    slice: str
    background: str
    size: Size

    @property
    def name(self) -> str:
        """What its latents are called."""
        return f"{self.sha256}-{self.size[0]}x{self.size[1]}{self.background}"


def _rows(denoiser: Denoiser, folder: Path, split: str) -> list[Row]:
    columns = read_manifest(folder).select(["sha256", "text", "slice", "background", "split", "width", "height"])
    rows = [row for row in columns.to_pylist() if row["split"] == split]
    sizes = {size: denoiser.size_for(size) for size in {(row["width"], row["height"]) for row in rows}}
    return [
        Row(row["sha256"], row["text"], row["slice"], row["background"], sizes[row["width"], row["height"]])
        for row in rows
    ]


def _pool(packs: Packs, rows: Sequence[Row]) -> Pool:
    texts, slices, sizes = (tuple(getattr(row, name) for row in rows) for name in ("text", "slice", "size"))
    return Pool(PackedLatents(packs, tuple(row.name for row in rows)), texts, slices, sizes)


def _decoded(assets: Iterable[Asset], rows: Mapping[str, Row]) -> Iterator[tuple[Row, Image]]:
    """Each asset's row and its picture at the row's size, a few decoded at the same time."""
    with ThreadPoolExecutor(min(MAX_DECODERS, os.cpu_count() or 1)) as workers:
        for some in batched(assets, MAX_DECODERS):
            own = [rows[asset.sha256] for asset in some]
            yield from zip(own, workers.map(Asset.picture, some, [row.size for row in own]), strict=True)
