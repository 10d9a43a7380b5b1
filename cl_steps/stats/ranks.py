"""The area under the ROC curve and the Mann-Whitney test, which are one statistic: AUC = P(x < y) + P(x = y) / 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
EXACT_UP_TO = 5_000
"""Up to this many pairs the test without ties is exact; beyond, normal with correction for ties (and conservative)."""
Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Shift:
    """How far one sample lies above another: `auc` (0.5: not at all) and a one-sided p-value for "not above"."""

    auc: float
    p_value: float


def auc_of(low: NDArray[Any], high: NDArray[Any]) -> float:
    """P(low < high) + P(low = high) / 2 of (n,) and (m,), from ranks."""
    ranks = stats.rankdata(np.concatenate([low, high]))[len(low) :]
    num_low, num_high = len(low), len(high)
    return float((ranks.sum() - num_high * (num_high + 1) / 2) / (num_low * num_high))


def shift_above(low: NDArray[Any], high: NDArray[Any]) -> Shift:
    """The one-sided Mann-Whitney test that `high` (m,) is stochastically greater than `low` (n,); both not empty."""
    distinct = len(np.unique(np.concatenate([low, high]))) == len(low) + len(high)
    method = "exact" if distinct and len(low) * len(high) <= EXACT_UP_TO else "asymptotic"
    p_value = float(stats.mannwhitneyu(high, low, alternative="greater", method=method).pvalue)
    return Shift(auc_of(low, high), p_value if np.isfinite(p_value) else 1.0)


def auc_variance(low: NDArray[Any], high: NDArray[Any]) -> float:
    """The variance of `auc_of` for two independent samples of at least 2 (DeLong, DeLong and Clarke-Pearson, 1988)."""
    wins = (low[:, None] < high[None, :]) + 0.5 * (low[:, None] == high[None, :])
    return float(wins.mean(axis=0).var(ddof=1) / len(high) + wins.mean(axis=1).var(ddof=1) / len(low))
