"""Kernel inception distance (Binkowski et al. 2018, arXiv 1801.01401) and how it differs between two paired models.

The kernel is k(x, y) = (x.y / d + 1)^3 over d features. Features of any extractor are first centred and scaled by the
held-out images of all slices (see `Scaler`), since CLIP's unit vectors would leave the kernel all but linear.

A model's *unit* is a prompt with all its seeds: the kernel between two units is the mean over their seeds, and a unit
is never compared with itself, nor with the held-out images that have its prompt for a caption (`own`): all pairs are
of different captions, so the estimate is unbiased whatever one caption's pictures have in common. Errors come from the
jackknife that leaves out one prompt for both models at once, and one held-out image; a bootstrap that draws with
replacement would meet k(x, x) and is biased upwards.

Shapes: n units of a model, s seeds a unit, m held-out images, d features; `own` (n, m), true where unit and image
share their caption.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cl_steps.stats.paired import MIN_UNITS, Estimate

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Scaler:
    """Takes features to mean 0 and mean square 1 (over images and features) of the held-out images."""

    centre: Floats
    scale: float

    @classmethod
    def of(cls, groups: list[Floats]) -> Scaler:
        """From each slice's held-out features (m, d); every slice counts the same."""
        centre = np.mean([group.mean(axis=0) for group in groups], axis=0)
        square = np.mean([((group - centre) ** 2).mean() for group in groups])
        return cls(centre, float(np.sqrt(square)) or 1.0)

    def __call__(self, features: Floats) -> Floats:
        """Scaled features, of the shape given."""
        scaled: Floats = (features - self.centre) / self.scale
        return scaled


def cubic(x: Floats, y: Floats) -> Floats:
    """The kernel (x.y / d + 1)^3 between rows of (a, d) and (b, d): (a, b)."""
    kernel: Floats = (x @ y.T / x.shape[1] + 1) ** 3
    return kernel


def distance(x: Floats, y: Floats) -> Floats:
    """Euclidean distances per root feature between rows of (a, d) and (b, d): (a, b)."""
    square = (x * x).sum(1)[:, None] + (y * y).sum(1)[None] - 2 * x @ y.T
    result: Floats = np.sqrt(np.maximum(square, 0) / x.shape[1])
    return result


def kid(samples: Floats, real: Floats, own: Mask) -> float:
    """Unbiased squared maximum mean discrepancy between samples (n, s, d) and held-out images (m, d).

    NaN where too few of either are left to compare.
    """
    alike = (own.T.astype(int) @ own > 0) | np.eye(len(real), dtype=bool)
    if len(samples) < 2 or own.all() or alike.all():
        return float("nan")
    real_term = cubic(real, real)[~alike].mean()
    across = _unit_means(cubic, samples, real[:, None, :])
    return float(_mean_pairs(_unit_means(cubic, samples, samples)) - 2 * across[~own].mean() + real_term)


def kid_difference(candidate: Floats, champion: Floats, real: Floats, own: Mask) -> Estimate:
    """KID of the candidate minus KID of the champion: samples (n, s, d) of the same prompts, images (m, d).

    What the held-out images share with themselves cancels. The variance is the sum of the two jackknives (Arvesen
    1969 for U-statistics of two samples).
    """
    units = min(len(candidate), len(real))
    if units < MIN_UNITS or not _finite(candidate, champion, real):
        return Estimate(float("nan"), float("nan"), units)
    within = _unit_means(cubic, candidate, candidate) - _unit_means(cubic, champion, champion)
    images = real[:, None, :]
    across = _unit_means(cubic, candidate, images) - _unit_means(cubic, champion, images)
    value = _mean_pairs(within) - 2 * across[~own].mean()
    by_prompt = _mean_pairs_without(within) - 2 * _mean_rows_without(across, own)
    by_image = _mean_pairs(within) - 2 * _mean_rows_without(across.T, own.T)
    return Estimate(float(value), float(np.sqrt(_jackknife(by_prompt) + _jackknife(by_image))), units)


def diversity(samples: Floats) -> float:
    """Mean distance between the samples of different prompts, samples (n, s, d); NaN for fewer than two prompts."""
    return _mean_pairs(_unit_means(distance, samples, samples)) if len(samples) > 1 else float("nan")


def diversity_loss(candidate: Floats, champion: Floats) -> Estimate:
    """By what share the candidate's diversity lies below the champion's, on the same prompts (n, s, d)."""
    units = len(candidate)
    if units < MIN_UNITS or not _finite(candidate, champion):
        return Estimate(float("nan"), float("nan"), units)
    one, other = (_unit_means(distance, samples, samples) for samples in (candidate, champion))
    if not _mean_pairs_without(other).min() > 0:
        return Estimate(float("nan"), float("nan"), units)
    value = 1 - _mean_pairs(one) / _mean_pairs(other)
    leave_outs = 1 - _mean_pairs_without(one) / _mean_pairs_without(other)
    return Estimate(float(value), float(np.sqrt(_jackknife(leave_outs))), units)


def _unit_means(function: object, left: Floats, right: Floats) -> Floats:
    """Mean of `function` over the seeds of each two units: (n, s, d) and (m, r, d) to (n, m)."""
    assert callable(function)
    values = function(left.reshape(-1, left.shape[2]), right.reshape(-1, right.shape[2]))
    blocks: Floats = values.reshape(len(left), left.shape[1], len(right), right.shape[1]).mean(axis=(1, 3))
    return blocks


def _mean_pairs(matrix: Floats) -> float:
    """Mean over the pairs of different units of a symmetric matrix (n, n)."""
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))


def _mean_pairs_without(matrix: Floats) -> Floats:
    """`_mean_pairs` with each unit left out in turn: (n,)."""
    count = len(matrix)
    off = matrix - np.diag(np.diag(matrix))
    result: Floats = (off.sum() - 2 * off.sum(axis=1)) / ((count - 1) * (count - 2))
    return result


def _mean_rows_without(matrix: Floats, masked: Mask) -> Floats:
    """The mean of what is not masked in a matrix (n, m), with each row left out in turn: (n,)."""
    sums, counts = np.where(masked, 0, matrix).sum(axis=1), (~masked).sum(axis=1)
    result: Floats = (sums.sum() - sums) / (counts.sum() - counts)
    return result


def _jackknife(leave_outs: Floats) -> float:
    """The jackknife's variance from n leave-one-out values."""
    count = len(leave_outs)
    return float((count - 1) / count * ((leave_outs - leave_outs.mean()) ** 2).sum())


def _finite(*arrays: Floats) -> bool:
    return all(bool(np.isfinite(array).all()) for array in arrays)
