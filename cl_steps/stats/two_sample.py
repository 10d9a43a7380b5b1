"""Do two sets of items come from one source? A classifier two-sample test, and MMD as a second opinion.

Lopez-Paz and Oquab, "Revisiting classifier two-sample tests" (ICLR 2017): a classifier that tells held-out items of
the two sets apart better than chance is evidence of a difference. Here: shrunken linear discriminant, trained on one
half and tested on the other, in both directions. Given one half, the other half's scores are exchangeable under the
null hypothesis, so that the Mann-Whitney test on them is exact, at any level and without refits; the two directions
are joined by twice the smaller p-value, valid whatever their dependence. (A DeLong interval on pooled cross-validated
scores is not: its false alarms reach 15 %.)

Shapes: n reference items, m new items, d columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from sklearn.covariance import ledoit_wolf

from cl_steps.stats.ranks import Z_95, auc_of, auc_variance, shift_above

Matrix = NDArray[np.float64]

MIN_ITEMS = 8
"""Fewer items than this on either side cannot be halved in a sensible way: there is no test."""
NULL_DRAWS = 60
NULL_QUANTILE = 0.95
NUM_PERMUTATIONS = 499
MAX_MMD_ITEMS = 250


@dataclass(frozen=True)
class Comparison:
    """`auc` with its 95 % interval, the p-value, and how far the AUC gets between draws of the reference itself."""

    auc: float
    lower: float
    upper: float
    p_value: float
    null_auc: float
    mmd: float
    mmd_p_value: float


def compare(reference: Matrix, new: Matrix, seed: np.random.SeedSequence) -> Comparison | None:
    """The whole comparison of (n, d) and (m, d); None if a side has fewer than `MIN_ITEMS`."""
    if min(len(reference), len(new)) < MIN_ITEMS:
        return None
    for_test, for_null, for_mmd = (np.random.default_rng(child) for child in seed.spawn(3))
    scores = cross_scores(reference, new, for_test)
    auc = float(np.mean([auc_of(*pair) for pair in scores]))
    p_value = min(1.0, 2 * min(shift_above(*pair).p_value for pair in scores))
    half_width = Z_95 * math.sqrt(sum(auc_variance(*pair) for pair in scores)) / 2
    mmd = mmd_test(reference, new, for_mmd)
    lower, upper = max(0.0, auc - half_width), min(1.0, auc + half_width)
    return Comparison(auc, lower, upper, p_value, null_auc(reference, len(new), for_null), mmd.value, mmd.p_value)


def cross_scores(reference: Matrix, new: Matrix, rng: np.random.Generator) -> tuple[tuple[Matrix, Matrix], ...]:
    """Held-out scores (reference's, new's) in both directions; every item is scored once, by what never saw it."""
    first, second = np.array_split(rng.permutation(len(reference)), 2)
    other, one = np.array_split(rng.permutation(len(new)), 2)  # odd ones on opposite sides
    a, b = (reference[first], new[one]), (reference[second], new[other])
    return _scores(a, b), _scores(b, a)


def discriminant(reference: Matrix, new: Matrix) -> tuple[Matrix, Matrix]:
    """Centre (d,) and direction (d,) from reference to new: (shrunken within-set covariance)^-1 (difference of means).

    Columns are first brought to unit variance within the sets; the shrinkage is Ledoit and Wolf's (2004), which keeps
    the inverse sound when d exceeds n + m.
    """
    centre = (reference.mean(axis=0) + new.mean(axis=0)) / 2
    difference = new.mean(axis=0) - reference.mean(axis=0)
    within = np.concatenate([reference - reference.mean(axis=0), new - new.mean(axis=0)])
    spread = within.std(axis=0)
    # A column constant within both sets can still differ between them; then its floor makes it decide.
    scale = np.maximum(spread, 1e-6 + 1e-3 * np.abs(difference))
    covariance = ledoit_wolf(within / scale, assume_centered=True)[0]
    covariance = covariance + 1e-6 * np.eye(len(covariance))
    direction: Matrix = linalg.solve(covariance, difference / scale, assume_a="pos") / scale
    return centre, direction


def null_auc(reference: Matrix, num_new: int, rng: np.random.Generator) -> float:
    """The upper 5 % point of the AUC between disjoint draws of the reference (n, d), of the sizes of the comparison.

    Where n is too small for draws as large as the batch, the draws are halves: smaller, so the point is higher.
    0.5 where even halves are too small.
    """
    num_drawn = min(num_new, len(reference) // 2)
    if num_drawn < MIN_ITEMS:
        return 0.5
    aucs = []
    for _ in range(NULL_DRAWS):
        order = rng.permutation(len(reference))
        scores = cross_scores(reference[order[num_drawn:]], reference[order[:num_drawn]], rng)
        aucs.append(np.mean([auc_of(*pair) for pair in scores]))
    return float(np.quantile(aucs, NULL_QUANTILE))


@dataclass(frozen=True)
class Mmd:
    """The unbiased squared maximum mean discrepancy and its permutation p-value."""

    value: float
    p_value: float


def mmd_test(reference: Matrix, new: Matrix, rng: np.random.Generator) -> Mmd:
    """MMD^2 with a Gaussian kernel at the median distance (Gretton et al., JMLR 2012, eq. 3), on standardised columns.

    At most 250 items a side; p = (1 + #{permuted >= observed}) / (1 + permutations).
    """
    x, y = (part[np.sort(rng.permutation(len(part))[:MAX_MMD_ITEMS])] for part in (reference, new))
    kernel = _kernel(np.concatenate([x, y]))
    label = np.arange(len(kernel)) < len(x)
    labels = np.stack([label, *(rng.permutation(label) for _ in range(NUM_PERMUTATIONS))]).astype(np.float64)
    values = _mmd_of(kernel, labels)
    count = int(np.sum(values[1:] >= values[0] - 1e-12))
    return Mmd(float(values[0]), (count + 1) / (NUM_PERMUTATIONS + 1))


def _mmd_of(kernel: Matrix, labels: Matrix) -> NDArray[Any]:
    """MMD^2 (P,) of a kernel (N, N) without diagonal under P labellings (P, N) of 1 (one set) and 0 (the other)."""
    n, m = labels[0].sum(), (1 - labels[0]).sum()
    rows = labels @ kernel
    within_x = (rows * labels).sum(axis=1)
    between = (rows * (1 - labels)).sum(axis=1)
    within_y = kernel.sum() - within_x - 2 * between
    squared: NDArray[Any] = within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * between / (n * m)
    return squared


def _kernel(items: Matrix) -> Matrix:
    """exp(-distance^2 / median distance^2) with a diagonal of 0, (N, N), of standardised (N, d)."""
    spread = items.std(axis=0)
    scaled = (items - items.mean(axis=0)) / np.where(spread > 0, spread, 1)
    norms = (scaled**2).sum(axis=1)
    squared = np.maximum(norms[:, None] + norms[None, :] - 2 * scaled @ scaled.T, 0)
    median = float(np.median(squared[np.triu_indices(len(squared), 1)]))
    kernel: Matrix = np.exp(-squared / (median or 1.0))
    np.fill_diagonal(kernel, 0)
    return kernel


def _scores(train: tuple[Matrix, Matrix], test: tuple[Matrix, Matrix]) -> tuple[Matrix, Matrix]:
    centre, direction = discriminant(*train)
    reference, new = test
    return (reference - centre) @ direction, (new - centre) @ direction
