"""Measured assets as columns: what `features.parquet` holds, in memory.

The file has a row an asset, sorted by SHA-256: `sha256`, `slice`, `features` (list of float32), `agreement` and
`specificity` (float32, null where captions cannot be compared), and a float64 column for each image property. Its
schema metadata names the extractor by its digest, since features of two extractors do not compare.

Shapes: N items, d features, P properties.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cl_steps.errors import UsageError
from cl_steps.stats.properties import PROPERTIES

EXTRACTOR_KEY = b"extractor"


@dataclass(frozen=True)
class Items:
    """N measured items; `agreement` and `specificity` (N,) hold NaN where they could not be measured."""

    sha256: tuple[str, ...]
    slices: tuple[str, ...]
    features: NDArray[np.float32]
    agreement: NDArray[np.float32]
    specificity: NDArray[np.float32]
    properties: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.sha256)

    def take(self, places: Sequence[int] | NDArray[Any]) -> Items:
        """The items at these places, in this order."""
        index = np.asarray(places, dtype=np.int64)
        return Items(
            tuple(self.sha256[at] for at in index),
            tuple(self.slices[at] for at in index),
            self.features[index],
            self.agreement[index],
            self.specificity[index],
            self.properties[index],
        )

    def of_slice(self, name: str) -> Items:
        """The items of one slice."""
        return self.take([at for at, own in enumerate(self.slices) if own == name])

    def among(self, names: Iterable[str]) -> Items:
        """The items whose SHA-256 is one of these."""
        wanted = set(names)
        return self.take([at for at, name in enumerate(self.sha256) if name in wanted])

    def sorted(self) -> Items:
        """The items in the order of their SHA-256."""
        return self.take(sorted(range(len(self)), key=self.sha256.__getitem__))

    def property_of(self, name: str) -> NDArray[np.float64]:
        """One image property (N,)."""
        column: NDArray[np.float64] = self.properties[:, PROPERTIES.index(name)]
        return column

    @property
    def names(self) -> tuple[str, ...]:
        """The slices that occur, in alphabetical order."""
        return tuple(sorted(set(self.slices)))


def joined(first: Items, second: Items) -> Items:
    """Both, in order of SHA-256; an item that is in both is the first's."""
    new = second.take([at for at, name in enumerate(second.sha256) if name not in set(first.sha256)])
    return Items(
        first.sha256 + new.sha256,
        first.slices + new.slices,
        np.concatenate([first.features, new.features]),
        np.concatenate([first.agreement, new.agreement]),
        np.concatenate([first.specificity, new.specificity]),
        np.concatenate([first.properties, new.properties]),
    ).sorted()


def bounded(items: Items, per_slice: int, seed: int) -> Items:
    """At most `per_slice` items of each slice: those with the smallest sha256(f"{seed}:{name}").

    A uniform sample that depends on no order and on no earlier choice: bounding the union of bounded parts gives what
    bounding the union of the whole parts gives (bottom-k sampling, Cohen and Kaplan, 2007).
    """
    rank = {name: hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in items.sha256}
    kept: list[int] = []
    for slice_name in items.names:
        places = [at for at, own in enumerate(items.slices) if own == slice_name]
        kept.extend(sorted(places, key=lambda at: rank[items.sha256[at]])[:per_slice])
    return items.take(kept).sorted()


def write_items(path: Path, items: Items, extractor: str) -> None:
    """Write `features.parquet`; `extractor` is the extractor's digest. The same items give the same bytes."""
    ordered = items.sorted()
    columns: dict[str, Any] = {
        "sha256": pa.array(ordered.sha256, pa.string()),
        "slice": pa.array(ordered.slices, pa.string()),
        "features": pa.array(list(ordered.features), pa.list_(pa.float32())),
        "agreement": pa.array(ordered.agreement, pa.float32(), from_pandas=True),
        "specificity": pa.array(ordered.specificity, pa.float32(), from_pandas=True),
    }
    columns |= {name: pa.array(ordered.property_of(name), pa.float64()) for name in PROPERTIES}
    table = pa.table(columns).replace_schema_metadata({EXTRACTOR_KEY: extractor.encode()})
    pq.write_table(table, path, compression="zstd", version="2.6")


def read_items(path: Path, extractor: str, num_features: int) -> Items:
    """Read `features.parquet` as `write_items` wrote it.

    Raises:
        UsageError: it was made with another extractor than the one with this digest.
    """
    table = pq.read_table(path)
    made_with = (table.schema.metadata or {}).get(EXTRACTOR_KEY, b"").decode()
    if made_with != extractor:
        raise UsageError(
            f"{path} was made with another feature extractor (digest {made_with[:16] or 'unknown'}) than "
            f"state/extractor (digest {extractor[:16]}): restore the extractor, or make the reference anew"
        )
    return Items(
        tuple(table["sha256"].to_pylist()),
        tuple(table["slice"].to_pylist()),
        np.array(table["features"].to_pylist(), dtype=np.float32).reshape(len(table), num_features),
        _column(table, "agreement").astype(np.float32),
        _column(table, "specificity").astype(np.float32),
        np.column_stack([_column(table, name) for name in PROPERTIES]),
    )


def _column(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A numeric column, null as NaN."""
    values = [np.nan if value is None else value for value in table[name].to_pylist()]
    return np.array(values, dtype=np.float64)
