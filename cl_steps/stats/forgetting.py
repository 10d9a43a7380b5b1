"""What a chain of versions forgot: the two usual summaries of a matrix of scores.

`scores[version][slice]` is a slice's score in a version, versions in order; a slice is absent before it is learnt.
Higher is better; pass negated losses.

Backward transfer is Lopez-Paz & Ranzato 2017 (arXiv 1706.08840, eq. 3); forgetting is Chaudhry et al. 2018
(arXiv 1801.10112, eq. 3). Both are means over the slices learnt before the last version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Scores = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Forgetting:
    """`backward_transfer` (below 0: later learning harmed) and `forgetting` (above 0: harmed), overall and by slice."""

    backward_transfer: float | None
    forgetting: float | None
    by_slice: Mapping[str, float]


def summarise(scores: Scores) -> Forgetting:
    """Backward transfer and forgetting in the last version; None where no slice is older than it."""
    known = {name: _known(scores, name) for name in sorted({name for row in scores.values() for name in row})}
    old = {name: values for name, values in known.items() if len(values) > 1}
    transfer = {name: values[-1] - values[0] for name, values in old.items()}
    forgotten = {name: max(values[:-1]) - values[-1] for name, values in old.items()}
    return Forgetting(_mean(transfer), _mean(forgotten), forgotten)


def _known(scores: Scores, name: str) -> list[float]:
    return [row[name] for row in scores.values() if name in row]


def _mean(values: Mapping[str, float]) -> float | None:
    return sum(values.values()) / len(values) if values else None
