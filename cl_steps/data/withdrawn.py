"""Withdrawn pictures, as far as anything of them is kept: their names, and fingerprints that tell copies."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cl_steps.data.duplicates import Prints, near_any, prints_of
from cl_steps.documents import Json

Row = Json


@dataclass(frozen=True)
class Withdrawn:
    """The tombstones of a line: SHA-256 of what was withdrawn, and its fingerprints."""

    names: frozenset[str]
    prints: Prints

    @classmethod
    def of(cls, tombstones: Iterable[Row]) -> Withdrawn:
        """From the ledger's tombstones, or an event's assets."""
        rows = list(tombstones)
        thumbnails = (base64.b64decode(row["thumbnail"]) for row in rows)
        prints = prints_of((bytes.fromhex(row["dhash"]) for row in rows), thumbnails)
        return cls(frozenset(str(row["sha256"]) for row in rows), prints)

    def near(self, prints: Prints, rmse: float) -> NDArray[np.bool_]:
        """Which of N pictures (N,) are copies: near-duplicates of one that was withdrawn."""
        return near_any(prints, self.prints, rmse)

    def among(self, manifest: pa.Table, rmse: float) -> NDArray[np.bool_]:
        """Which rows (N,) of a manifest are withdrawn pictures, or copies of them."""
        if not self.names:
            return np.zeros(manifest.num_rows, dtype=np.bool_)
        named = np.array([name in self.names for name in manifest["sha256"].to_pylist()], dtype=np.bool_)
        prints = prints_of(manifest["dhash"].to_pylist(), manifest["thumbnail"].to_pylist())
        return named | self.near(prints, rmse)


def consent_ended(manifest: pa.Table, today: str) -> NDArray[np.bool_]:
    """Of which rows (N,) of a manifest consent ended before a day (ISO 8601)."""
    return np.array([bool(until) and until < today for until in manifest["consent_until"].to_pylist()], dtype=np.bool_)


def tombstone(row: Row) -> dict[str, str]:
    """What an event keeps of a manifest's row (columns sha256, dhash and thumbnail): enough to know it again."""
    thumbnail = base64.b64encode(row["thumbnail"]).decode()
    return {"sha256": row["sha256"], "dhash": row["dhash"].hex(), "thumbnail": thumbnail}


NOTHING = Withdrawn.of(())
