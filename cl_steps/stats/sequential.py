"""Error budgets: over the looks at a growing batch, and over the tests of one verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence


def spent_at(look: int, level: float) -> float:
    """The part of `level` that look k = 1, 2, ... may spend: level * 6 / (pi^2 k^2).

    Over all looks, however many there will be, the parts add up to `level` (sum of 1/k^2 = pi^2/6), so that the chance
    of ever rejecting a true null hypothesis is at most `level` (union bound; Lan and DeMets, "Discrete sequential
    boundaries for clinical trials", 1983, for the idea of spending).
    """
    assert look >= 1, "looks are counted from 1"
    return level * 6 / (math.pi**2 * look**2)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given: rejecting those <= a keeps the family's error at a (Holm, 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
