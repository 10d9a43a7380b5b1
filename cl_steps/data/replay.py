"""The replay buffer: which learnt items are kept, a uniform sample of each slice that never needs the dropped ones.

Bottom-k by hash (Cohen and Kaplan, "Summarizing data using bottom-k sketches", PODC 2007): every item has the key
SHA-256 of "seed:sha256", and a slice keeps its smallest. So the sample does not depend on the order of arrival, and
select(select(A) + B) = select(A + B): what was dropped once is not needed again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from cl_steps.data.shards import Asset, iter_assets, manifest_of, write_dataset

PROBES = 0.25
"""A buffer of 2,000 training images may hold 500 probe images beside them."""


def select(manifest: pa.Table, capacity: int, seed: int) -> pa.Table:
    """At most `capacity` rows of a manifest (columns sha256 and slice at least), sorted by sha256.

    Slices share the capacity equally; what a small slice leaves goes to the others. Precisely: rows go in the order
    of (rank of the key within the slice, key), and adding rows can only move a row back in it.
    """
    rows = enumerate(zip(manifest["sha256"].to_pylist(), manifest["slice"].to_pylist(), strict=True))
    keyed = sorted((_key(name, seed), slice_name, index) for index, (name, slice_name) in rows)
    seen: Counter[str] = Counter()
    ranked = []
    for key, slice_name, index in keyed:
        ranked.append((seen[slice_name], key, index))
        seen[slice_name] += 1
    kept = pa.array([index for _, _, index in sorted(ranked)[:capacity]], pa.int64())
    return manifest.take(kept).sort_by("sha256")


def write_next(folder: Path, sources: Sequence[Path], capacity: int, seed: int) -> None:
    """Write the buffer that follows: of all training and of all probe rows of the sources, bottom-k per slice.

    Args:
        folder: where to; empty.
        sources: dataset folders, the buffer so far and what was learnt since.
        capacity: the most training rows.
        seed: the line's.
    """
    known = manifest_of(sources)
    assets: dict[str, Asset] = {}
    for split, room in (("train", capacity), ("probe", max(1, round(capacity * PROBES)))):
        rows = known.filter(pc.equal(known["split"], split))
        kept = set(select(rows, room, seed)["sha256"].to_pylist())
        for source in sources:
            assets |= {asset.sha256: asset for asset in iter_assets(source, split) if asset.sha256 in kept}
    write_dataset(folder, assets.values())


def _key(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
