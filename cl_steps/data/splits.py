"""Who learns, who is probed, who is examined: whole groups of near-duplicates on one side, by hash.

A group's split follows from (seed, name of the group) alone, so it does not depend on what else arrived, with one
exception: a slice of at least 10 groups (those known included) that lacks train, probe or unsealed evaluation items
gets them from the newcomers, namely the group whose hash is nearest. So a newcomer's split can depend on others of
its slice only on the nights in which the slice still lacks something. What is known never moves.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Literal

from cl_steps.config import Ingest

MIN_GROUPS = 10

Split = Literal["train", "probe", "evaluation"]
REQUIRED: tuple[Split, ...] = ("evaluation", "probe", "train")


def uniform(seed: int, purpose: str, name: str) -> float:
    """A number in [0, 1) from SHA-256 of what identifies it."""
    digest = hashlib.sha256(f"{seed}:{purpose}:{name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def split_of(group: str, params: Ingest, seed: int) -> Split:
    """The split that a group's hash gives it: evaluation, then probe, then train along [0, 1)."""
    place = uniform(seed, "split", group)
    if place < params.evaluation_share:
        return "evaluation"
    return "probe" if place < params.evaluation_share + params.probe_share else "train"


def is_sealed(group: str, params: Ingest, seed: int) -> bool:
    """Whether an evaluation group is kept for audits."""
    return uniform(seed, "sealed", group) < params.sealed_share


def assign(
    new: Mapping[str, AbstractSet[str]], known: Iterable[tuple[str, str, str]], params: Ingest, seed: int
) -> dict[str, Split]:
    """The split of every new group.

    Args:
        new: group to the slices that its assets are in.
        known: (group, slice, split) of every known asset; a group of `new` must not be among them.
        params: the shares.
        seed: the line's.
    """
    splits = {group: split_of(group, params, seed) for group in new}
    there: dict[str, dict[str, str]] = defaultdict(dict)
    for group, name, split in known:
        there[name][group] = split
    for name in sorted({name for slices in new.values() for name in slices}):
        mine = [group for group in sorted(new) if name in new[group]]
        if len(mine) + len(there[name]) >= MIN_GROUPS:
            movable = [group for group in mine if len(new[group]) == 1]
            for wanted in REQUIRED:
                splits |= _completed(wanted, movable, there[name] | {g: splits[g] for g in mine}, params, seed)
    return splits


def _completed(
    wanted: Split, movable: list[str], slice_splits: Mapping[str, str], params: Ingest, seed: int
) -> dict[str, Split]:
    """What must move so that a slice (group to split) has an unsealed group of `wanted`: nothing, or one group."""

    def serves(group: str, split: str) -> bool:
        return split != "evaluation" or not is_sealed(group, params, seed)

    serving = Counter(split for group, split in slice_splits.items() if serves(group, split))
    if serving[wanted]:
        return {}
    free = [group for group in movable if serves(group, wanted) and serving[slice_splits[group]] > 1]
    nearest = min(free, key=lambda group: (_distance(group, wanted, params, seed), group), default=None)
    return {nearest: wanted} if nearest else {}


def _distance(group: str, wanted: Split, params: Ingest, seed: int) -> float:
    """How far a group's hash lies from a split's range."""
    first, second = params.evaluation_share, params.evaluation_share + params.probe_share
    low, high = {"evaluation": (0.0, first), "probe": (first, second), "train": (second, 1.0)}[wanted]
    place = uniform(seed, "split", group)
    return max(low - place, place - high)
