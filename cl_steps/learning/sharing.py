"""A step's batch in shares: one for each process, each in parts that fit the memory.

The loss is a mean over n new rows plus means over m replayed ones (denoising, penalties). A part with n' and m' of them
counts n'/n and m'/m, so that the sum over all parts of all processes is the loss of the whole batch, and so are its
gradients. A term that no row enters counts by the part's share of all rows: once a step. Rows are dealt like cards, so
that every part has its share of both kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from cl_steps.learning.plan import Plan


@dataclass(frozen=True)
class Part:
    """Some rows of a step; `new` and `replayed` are the shares n'/n and m'/m that they count, `rows` of all of them."""

    plan: Plan
    new: float
    replayed: float
    rows: float


def parts_of(plan: Plan, rank: int = 0, processes: int = 1, parts: int = 1) -> Iterator[Part]:
    """What process `rank` of `processes` computes of a step, in up to `parts` parts; none of them is empty."""
    if processes * parts == 1:
        yield Part(plan, 1.0, 1.0, 1.0)
        return
    num_new, num_replayed = len(plan.new), len(plan.replay)
    own = torch.arange(num_new + num_replayed)[rank::processes]
    for number in range(parts):
        rows = own[number::parts]
        if len(rows):
            new, replayed = rows[rows < num_new], rows[rows >= num_new]
            part = Plan(
                plan.new[new], plan.replay[replayed - num_new], plan.u[rows], plan.noise[rows], plan.dropped[rows]
            )
            share = len(rows) / (num_new + num_replayed)
            yield Part(part, len(new) / num_new, len(replayed) / max(1, num_replayed), share)


def rows_at_once(batch_size: int, processes: int, parts: int) -> int:
    """Rows of the largest part."""
    return -(-batch_size // (processes * parts))
