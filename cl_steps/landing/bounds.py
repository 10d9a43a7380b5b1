"""What of a landing one run takes, decided from its listing: nothing is copied that does not fit.

Metadata comes first, small files before large ones, so that a huge one takes no other's place. Where not all of the
rest fits, the run's id shuffles it: what is left tonight has its turn another night, whatever else lies there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cl_steps.config import Ingest
from cl_steps.landing import names
from cl_steps.landing.entries import Entry

COPIES = 6
"""How often, at most, a step's scratch holds a byte that landed: the snapshot, the intake, the batch, DVC's cache of
both, and a quarantine."""
SCRATCH = "RETAIN_SCRATCH_BYTES"
"""In a pod: how many bytes its scratch may hold, which the disk below it does not know."""


def within(entries: Iterable[Entry], bounds: Ingest, run: str = "", room: int | None = None) -> list[Entry]:
    """The same entries in the same order, those that do not fit with their `fault` or with why they are `left`.

    Args:
        entries: as they were listed.
        bounds: of the line.
        run: shuffles what does not fit.
        room: how many bytes may be copied, where they are copied.
    """
    found = [_not_too_large(entry, bounds) for entry in entries]
    space = {} if room is None else {"room": room}
    metadata = [entry for entry in found if entry.is_there and entry.is_metadata]
    left = _over(metadata, {"files": bounds.max_files, "metadata": bounds.max_metadata_bytes, **space}, _small_first)
    taken = [entry.num_bytes for entry in metadata if entry.name not in left]
    budget = {"files": bounds.max_files - len(taken), "bytes": bounds.max_landing_bytes}
    budget |= {kind: amount - sum(taken) for kind, amount in space.items()}
    others = [entry for entry in found if entry.is_there and not entry.is_metadata]
    left |= _over(others, budget, partial(_turn, run=run))
    return [replace(e, left=left[e.name]) if e.is_there and e.name in left else e for e in found]


def room_at(folder: Path) -> int:
    """How many bytes of a landing may be copied to the disk of `folder`, so that the step does not fill it."""
    given = os.environ.get(SCRATCH, "")
    free = shutil.disk_usage(folder).free
    return min(free, int(given) if given.isdecimal() else free) // COPIES


def _not_too_large(entry: Entry, bounds: Ingest) -> Entry:
    if entry.is_there and not entry.is_metadata and entry.num_bytes > bounds.max_file_bytes:
        return replace(entry, fault="too_large")
    return entry


def _over(entries: list[Entry], budget: dict[str, int], order: Callable[[Entry], Any]) -> dict[str, str]:
    """Why those that exceed a budget are left, by name."""
    num_bytes = sum(entry.num_bytes for entry in entries)
    if all((len(entries) if kind == "files" else num_bytes) <= amount for kind, amount in budget.items()):
        return {}
    left, remaining = {}, dict(budget)
    for entry in sorted(entries, key=order):
        cost = {kind: 1 if kind == "files" else entry.num_bytes for kind in budget}
        over = next((kind for kind in budget if cost[kind] > remaining[kind]), None)
        if over:
            left[entry.name] = over
        else:
            remaining = {kind: amount - cost[kind] for kind, amount in remaining.items()}
    return left


def _small_first(entry: Entry) -> tuple[int, str]:
    return entry.num_bytes, entry.name


def _turn(entry: Entry, run: str) -> tuple[bool, bytes, str]:
    """A picture and its caption have theirs together."""
    name = names.stem(entry.name).encode("utf-8", "surrogatepass")
    return entry.is_hidden, hashlib.blake2b(name, key=run.encode()[:64], digest_size=8).digest(), entry.name
