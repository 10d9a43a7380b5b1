"""How far samples are from the real pictures.

FD      ||m - m'||^2 + tr C + tr C' - 2 tr (C^1/2 C' C^1/2)^1/2, by eigenvalues (Heusel et al., arXiv 1706.08500);
        biased upwards by few samples, so that only equal numbers compare
KID     `cl_steps.stats.kid`, unbiased, on at most 1,000 of each
coverage the share of real pictures with a sample nearer than their fifth neighbour (Naeem et al., arXiv 2002.09797)
accuracy the share of samples whose class a net sees as the one that was asked for
KLD     of the histogram of seen classes from that of the classes asked for, in nats

Shapes: n samples, m real pictures, d features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cl_steps.stats.kid import Scaler, kid
from tests.benchmarks.mnist5.digits import Pictures
from tests.benchmarks.mnist5.nets import Plain, Residual, seen
from tests.benchmarks.mnist5.settings import CLASSES

Floats = NDArray[np.float64]
KID_ROWS, NEIGHBOURS = 1000, 5


@dataclass(frozen=True)
class Judged:
    """Pictures as a net sees them: their classes as asked for or labelled (n,), as seen (n,), and features (n, d)."""

    asked: NDArray[np.int64]
    classes: NDArray[np.int64]
    features: Floats

    @classmethod
    def by(cls, net: Plain | Residual, pictures: Pictures, asked: NDArray[np.int64]) -> Judged:
        """What a net sees in pictures."""
        features, classes = seen(net, pictures)
        return cls(asked, classes, features)

    def of(self, classes: tuple[int, ...]) -> Judged:
        """Those that are of some classes."""
        rows = np.isin(self.asked, classes)
        return Judged(self.asked[rows], self.classes[rows], self.features[rows])


def scores(samples: Judged, real: Judged) -> Mapping[str, float]:
    """Every figure by its name."""
    return {
        "fd": frechet(samples.features, real.features),
        "kid": kernel_distance(samples.features, real.features),
        "coverage": coverage(samples.features, real.features),
        "accuracy": float((samples.classes == samples.asked).mean()),
        "kld": divergence(samples.classes, samples.asked),
    }


def frechet(x: Floats, y: Floats) -> float:
    """The squared Frechet distance of the Gaussians with the means and covariances of x (n, d) and y (m, d)."""
    one, other = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ other @ root).clip(0)).sum()
    return float(((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() + np.trace(one) + np.trace(other) - 2 * cross)


def kernel_distance(x: Floats, y: Floats) -> float:
    """KID of samples (n, d) and pictures (m, d), evenly taken, in the units of the pictures' spread."""
    scale = Scaler.of([y])
    some, real = (scale(rows[:: -(-len(rows) // KID_ROWS)]) for rows in (x, y))
    return kid(some[:, None, :], real, np.zeros((len(some), len(real)), dtype=bool))


def coverage(x: Floats, y: Floats, rows: int = 2000) -> float:
    """Of samples (n, d) and at most `rows` pictures of (m, d), evenly taken."""
    y = y[:: -(-len(y) // rows)]
    radius = np.partition(cdist(y, y), min(NEIGHBOURS, len(y) - 1), axis=1)[:, min(NEIGHBOURS, len(y) - 1)]
    return float((cdist(y, x).min(axis=1) < radius).mean())


def divergence(classes: NDArray[np.int64], asked: NDArray[np.int64]) -> float:
    """KL(seen || asked for); each class asked for has been asked for, so that it is finite where those alone are seen.

    A class that was not asked for counts as half a picture asked for.
    """
    p, q = (np.bincount(rows, minlength=len(CLASSES)) for rows in (classes, asked))
    p, q = p / p.sum(), np.maximum(q, 0.5) / np.maximum(q, 0.5).sum()
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())
