"""The near-duplicates of a picture among all assets that a line ever took in and did not erase."""

from __future__ import annotations

import sqlite3
from functools import partial

from cl_steps.data import duplicates
from cl_steps.data.images import ImageFacts
from cl_steps.repository.line import Line
from cl_steps.trace.index import ask

AT_ONCE = 50_000
"""Fingerprints in memory at a time."""


def near_duplicates(line: Line, image: ImageFacts | str) -> tuple[tuple[str, float], ...]:
    """The near-duplicates of a picture, or of a known asset by its SHA-256, and their distance (RMSE, 0 to 255).

    The nearest first; the asset itself is none of them. Raises as `index.ask`.
    """
    return ask(line, partial(_near, image=image))


def _near(db: sqlite3.Connection, image: ImageFacts | str) -> tuple[tuple[str, float], ...]:
    rmse = float(db.execute("SELECT value FROM facts WHERE name = 'rmse'").fetchone()[0])
    own = _prints_of(db, image) if isinstance(image, str) else (image.dhash, image.thumbnail)
    if own is None:
        return ()
    one = duplicates.prints_of([own[0]], [own[1]])
    rows = db.execute("SELECT hex(sha), dhash, thumbnail FROM prints JOIN assets ON assets.id = prints.asset")
    found: dict[str, float] = {}
    while some := rows.fetchmany(AT_ONCE):
        others = duplicates.prints_of((row[1] for row in some), (row[2] for row in some))
        for _, columns in duplicates.near_pairs(one, others, rmse):
            distances = duplicates.distances(one, others.take(columns))
            found |= {some[c][0].lower(): float(d) for c, d in zip(columns.tolist(), distances, strict=True)}
    found.pop(image if isinstance(image, str) else "", None)
    return tuple(sorted(found.items(), key=lambda item: (item[1], item[0])))


def _prints_of(db: sqlite3.Connection, sha256: str) -> tuple[bytes, bytes] | None:
    query = "SELECT dhash, thumbnail FROM prints JOIN assets ON assets.id = prints.asset WHERE sha = ?"
    row: tuple[bytes, bytes] | None = db.execute(query, (bytes.fromhex(sha256),)).fetchone()
    return row
