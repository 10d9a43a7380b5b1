"""Bursts: pictures that a camera took of one thing within seconds. They are one unit, on one side of the split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

SECONDS = 2
MAX_BURST = 50
"""A longer row is no burst: a clock that stands still, a time-lapse, a date that a program wrote."""


def bursts(sources: Sequence[str], taken: Sequence[str]) -> Iterator[list[int]]:
    """The rows of each burst: of one source, each at most `SECONDS` after the one before.

    Args:
        sources: of every picture; those that name none are of one source.
        taken: when a camera took it (ISO 8601); empty where nobody knows.
    """
    moments = [(source, _seconds(moment), row) for row, (source, moment) in enumerate(zip(sources, taken, strict=True))]
    found: list[int] = []
    before = ("", -np.inf)
    for source, seconds, row in sorted(moment for moment in moments if np.isfinite(moment[1])):
        if source != before[0] or seconds - before[1] > SECONDS:
            yield from _one(found)
            found = []
        found.append(row)
        before = (source, seconds)
    yield from _one(found)


def edges_of(sources: Sequence[str], taken: Sequence[str]) -> NDArray[np.int64]:
    """The bursts as pairs of rows (2, P)."""
    pairs = [(found[0], row) for found in bursts(sources, taken) for row in found[1:]]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2).T


def _one(found: list[int]) -> Iterator[list[int]]:
    if 1 < len(found) <= MAX_BURST:
        yield found


def _seconds(moment: str) -> float:
    try:
        return datetime.fromisoformat(moment).timestamp() if moment else np.inf
    except (ValueError, OverflowError):
        return np.inf
