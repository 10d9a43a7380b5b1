"""A step's batch in shares: one for each process, each in parts that fit the memory.

The loss is a mean over n new rows plus means over m replayed ones (denoising, penalties). A part with n' and m' of them
counts n'/n and m'/m, so that the sum over all parts of all processes is the loss of the whole batch, and so are its
gradients. A term that no row enters counts by the part's share of all rows: once a step. Rows are dealt like cards, so
that every part has its share of both kinds; those of a part have one size of picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from cl_steps.data.images import by_size
from cl_steps.learning.plan import Plan


@dataclass(frozen=True)
class Part:
    """Some rows of a step; `new` and `replayed` are the shares n'/n and m'/m that they count, `rows` of all of them."""

    plan: Plan
    new: float
    replayed: float
    rows: float


def parts_of(plan: Plan, rank: int = 0, processes: int = 1, parts: int = 1) -> Iterator[Part]:
    """What process `rank` of `processes` computes of a step, in up to `parts` parts a size; none of them is empty."""
    num_new, num_replayed = len(plan.new), len(plan.replay)
    own = torch.arange(num_new + num_replayed)[rank::processes]
    for places in by_size(plan.sizes[row] for row in own.tolist()).values():
        for number in range(parts):
            rows = own[places[number::parts]]
            if len(rows):
                new, replayed = int((rows < num_new).sum()), int((rows >= num_new).sum())
                share = len(rows) / (num_new + num_replayed)
                yield Part(plan.only(rows), new / num_new, replayed / max(1, num_replayed), share)


def rows_at_once(batch_size: int, processes: int, parts: int) -> int:
    """Rows of the largest part."""
    return -(-batch_size // (processes * parts))
