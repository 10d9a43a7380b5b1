"""What the data say about drift, slice by slice: two families of tests for drift, and the alarms.

- *tonight*: tonight's items of a known slice against the reference of that slice;
- *pending*: all items that are pending (tonight's and those of quiet nights before) against the same reference;
- *alarms*: tonight's pictures do not fit their captions, or look like no picture at all.

Nothing is decided here: see `drift_verdict`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, stats

from cl_steps.stats.items import Items
from cl_steps.stats.properties import DECIDING
from cl_steps.stats.ranks import Shift, auc_of, shift_above
from cl_steps.stats.two_sample import MIN_ITEMS, Comparison, compare, cross_scores

Matrix = NDArray[np.float64]

MAX_FEATURES = 64
FAR = 2.0
"""An image is outlandish with this many times the noise or sharpness (or this part of the contrast) of nearly all."""
NEARLY_ALL = 0.99
SHARE_BY_CHANCE = 0.02
"""The most of honest images that are outlandish: 1 % lie above the quantile, and fewer above twice of it."""
LOWEST = 0.02
"""The part of known pictures that fit their captions least."""


@dataclass(frozen=True)
class Odd:
    """Items of a kind that is rare among known ones: their share of tonight's, and the p-value of so many."""

    share: float
    p_value: float


@dataclass(frozen=True)
class Nearest:
    """The known slice that a new one is hardest to tell from, and how well it can be told (AUC). Decides nothing."""

    name: str
    auc: float


@dataclass(frozen=True)
class SliceEvidence:
    """What is known of one slice of the batch; None where there is nothing to test, or too little."""

    name: str
    num_reference: int
    num_tonight: int
    num_pending: int
    tonight: Comparison | None = None
    pending: Comparison | None = None
    agreement: Shift | None = None
    specificity: Shift | None = None
    misfits: Odd | None = None
    outlandish: Odd | None = None
    nearest: Nearest | None = None

    @property
    def is_new(self) -> bool:
        """Whether the slice has no reference that anything could be compared with."""
        return self.num_reference < MIN_ITEMS


@dataclass(frozen=True)
class Evidence:
    """Everything that the verdict rests on. `look` counts the looks at this pending batch, from 1."""

    slices: tuple[SliceEvidence, ...]
    look: int = 1
    num_new: int = 0
    num_quarantined: int = 0
    approved: str = ""
    forced: str = ""


def gather(reference: Items, batch: Items, tonight: Items, seed: int) -> tuple[SliceEvidence, ...]:
    """The evidence of every slice of the batch; `tonight` is the part of it that nobody has looked at before."""
    return tuple(_of_slice(name, reference, batch, tonight, seed) for name in batch.names)


def _of_slice(name: str, reference: Items, batch: Items, tonight: Items, seed: int) -> SliceEvidence:
    own, pending, new = reference.of_slice(name), batch.of_slice(name), tonight.of_slice(name)
    is_new = len(own) < MIN_ITEMS
    known = reference if is_new else own
    comparisons = (None, None) if is_new else _comparisons(own, pending, new, name, seed)
    return SliceEvidence(
        name,
        len(own),
        len(new),
        len(pending),
        *comparisons,
        fits_worse(known.agreement, new.agreement),
        fits_worse(known.specificity, new.specificity),
        None if is_new else misfits(own.agreement, new.agreement),
        outlandish(reference, new),
        nearest_of(reference, pending, _seed(seed, name, "nearest")) if is_new else None,
    )


def _comparisons(
    own: Items, pending: Items, new: Items, name: str, seed: int
) -> tuple[Comparison | None, Comparison | None]:
    """Tonight's and the pending items against the slice's reference; one computation where they are the same items."""
    whole = compare(*matrices(own, pending), _seed(seed, name, "pending"))
    if new.sha256 == pending.sha256:
        return whole, whole
    return compare(*matrices(own, new), _seed(seed, name, "tonight")), whole


def matrices(known: Items, new: Items) -> tuple[Matrix, Matrix]:
    """What the tests see of both: at most 64 columns of features, and the properties that decide.

    More features are turned into the 64 largest principal components of both sets together. That does not ask which
    item is in which set, so that the tests stay exact; small batches gain power, and large models cost no more.
    """
    features = np.concatenate([known.features, new.features]).astype(np.float64)
    if features.shape[1] > MAX_FEATURES:
        centred = features - features.mean(axis=0)
        _, axes = linalg.eigh(
            centred.T @ centred, subset_by_index=(features.shape[1] - MAX_FEATURES, features.shape[1] - 1)
        )
        features = centred @ axes
    columns = [np.concatenate([known.property_of(name), new.property_of(name)]) for name in DECIDING]
    both = np.column_stack([features, *columns])
    return both[: len(known)], both[len(known) :]


def fits_worse(known: NDArray[np.float32], new: NDArray[np.float32]) -> Shift | None:
    """The test that pictures fit their captions worse than known ones do; None where either was not measured."""
    known, new = known[~np.isnan(known)], new[~np.isnan(new)]
    return shift_above(new, known) if len(known) >= MIN_ITEMS and len(new) else None


def misfits(known: NDArray[np.float32], new: NDArray[np.float32]) -> Odd | None:
    """How many pictures fit their captions less than 98 % of known ones do: finds a part of wrong ones among right.

    The p-value is exact for exchangeable items. With r the rank of the limit among n known ones, k of m new ones are
    below it if and only if at least k of the k + r - 1 lowest of all n + m are new: hypergeometric.
    """
    known, new = known[~np.isnan(known)], new[~np.isnan(new)]
    if len(known) < MIN_ITEMS or not len(new):
        return None
    rank = math.ceil(LOWEST * len(known))
    count = int((new < np.sort(known)[rank - 1]).sum())
    p_value = stats.hypergeom.sf(count - 1, len(known) + len(new), len(new), count + rank - 1)
    return Odd(count / len(new), float(p_value) if count else 1.0)


def outlandish(reference: Items, new: Items) -> Odd | None:
    """How many new images are far outside every known slice; None without a reference or without new images.

    Far outside: more than twice the noise or the sharpness (standard deviation of the Laplacian) that 99 % of the
    known slice with the most have, or less than half the contrast that 99 % of the one with the least have.
    """
    slices = [part for name in reference.names if len(part := reference.of_slice(name)) >= MIN_ITEMS]
    if not slices or not len(new):
        return None
    limits = {name: _highest(slices, name) for name in ("noise", "sharpness")}
    least = min(float(np.quantile(part.property_of("contrast"), 1 - NEARLY_ALL)) for part in slices)
    far = np.expm1(new.property_of("noise")) > FAR * limits["noise"]
    far |= np.expm1(new.property_of("sharpness")) > FAR**2 * limits["sharpness"]
    far |= new.property_of("contrast") < least / FAR
    return Odd(float(far.mean()), float(stats.binom.sf(far.sum() - 1, len(far), SHARE_BY_CHANCE)))


def nearest_of(reference: Items, new: Items, seed: np.random.SeedSequence) -> Nearest | None:
    """The known slice that is most like `new`; None where nothing is known or `new` is too small to tell."""
    known = [name for name in reference.names if len(reference.of_slice(name)) >= MIN_ITEMS]
    if len(new) < MIN_ITEMS:
        return None
    found = [Nearest(name, _auc(reference.of_slice(name), new, seed)) for name in known]
    return min(found, key=lambda near: near.auc, default=None)


def _auc(known: Items, new: Items, seed: np.random.SeedSequence) -> float:
    pairs = cross_scores(*matrices(known, new), np.random.default_rng(seed))
    return float(np.mean([auc_of(*pair) for pair in pairs]))


def _highest(slices: Sequence[Items], name: str) -> float:
    return max(float(np.quantile(np.expm1(part.property_of(name)), NEARLY_ALL)) for part in slices)


def _seed(seed: int, *what: str) -> np.random.SeedSequence:
    """Randomness that depends on the line's seed and on what is tested, never on the order of the tests."""
    digest = hashlib.sha256("\0".join(what).encode()).digest()
    return np.random.SeedSequence([seed, int.from_bytes(digest[:8], "big")])
