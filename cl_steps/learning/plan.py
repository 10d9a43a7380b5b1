"""What each training step looks at: items, timesteps, noise and dropped captions, from (seed, step) alone.

So a run that was interrupted sees exactly what it would have seen, and nothing needs to be saved about it.

n new and m replayed items a step, in this order.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cl_steps.data.images import by_size
from cl_steps.models.watching import Size

EPSILON = 1e-9
Items = Sequence[Size]
"""The size of each item of a pool."""


@dataclass(frozen=True)
class Plan:
    """One step: `new` (n,) and `replay` (m,) are places in their pools; the rest has n + m rows.

    `u` says of each row's timestep which share of all draws lies below it: the model's schedule knows the timestep.
    `sizes` are the pictures'; `noise` has the shape of the latents of that size.
    """

    new: Tensor
    replay: Tensor
    u: Tensor
    noise: tuple[Tensor, ...]
    dropped: Tensor
    sizes: tuple[Size, ...]

    def only(self, rows: Tensor) -> Plan:
        """These rows of it, which are in order."""
        new, replayed = rows[rows < len(self.new)], rows[rows >= len(self.new)] - len(self.new)
        noise, sizes = tuple(self.noise[row] for row in rows), tuple(self.sizes[row] for row in rows)
        return Plan(self.new[new], self.replay[replayed], self.u[rows], noise, self.dropped[rows], sizes)


@dataclass(frozen=True)
class Stage:
    """What the steps look at that come before a share of all of them.

    Attributes:
        until: the share of the night's steps at which it ends.
        new: the share of each step's rows that are new, where old ones are replayed.
        band: between which quantiles of the noise timesteps lie: 0 is the least noise.
        nearest: the share of the new items that are seen, those first that the champion knows best.
        layers: words; where there are any, only layers learn whose names have one of them.
    """

    until: float = 1.0
    new: float = 0.5
    band: tuple[float, float] = (0.0, 1.0)
    nearest: float = 1.0
    layers: tuple[str, ...] = ()


WHOLE = (Stage(),)


@dataclass(frozen=True)
class Planner:
    """Plans steps of `batch_size` items: half new and half replayed, or all new where nothing is replayed.

    An odd item is a new one. Each pool is gone through in a new random order again and again, so that no item is seen
    twice before all are seen once. In this order items of one size follow each other by as many as a step has of their
    pool, so that few steps have more than one size of each.

    Attributes:
        shapes: of the latents of each size.
        steps: of the night.
        stages: their `until` rise, and the last one's is 1.
        nearness: the places of new items, those that the champion knows best first; needed by a stage's `nearest`.
    """

    seed: int
    new: Items
    replay: Items
    batch_size: int
    shapes: Mapping[Size, tuple[int, ...]]
    caption_dropout: float
    steps: int = 1
    stages: tuple[Stage, ...] = WHOLE
    nearness: Sequence[int] = ()
    _rounds: dict[tuple[str, int], Tensor] = field(init=False, default_factory=dict, compare=False, repr=False)

    def plan(self, step: int) -> Plan:
        """The plan of a step, counted from 0."""
        number, begun = self.stage_at(step)
        stage, name = self.stages[number], f"{number}" if number else ""
        num_new = math.ceil(self.batch_size * stage.new - EPSILON) if self.replay else self.batch_size
        num_replay = self.batch_size - num_new
        random = generator(self.seed, "step", step)
        seen = self.nearness[: math.ceil(len(self.new) * stage.nearest)] if stage.nearest < 1 else None
        new = self._places(f"new{name}", (step - begun) * num_new, num_new, self.new, seen)
        replay = self._places(f"replay{name}", (step - begun) * num_replay, num_replay, self.replay)
        low, high = stage.band
        u = torch.cat([stratified(count, random) for count in (num_new, num_replay)])
        sizes = (*(self.new[place] for place in new.tolist()), *(self.replay[place] for place in replay.tolist()))
        return Plan(
            new=new,
            replay=replay,
            u=low + (high - low) * u if stage.band != WHOLE[0].band else u,
            noise=tuple(torch.randn(self.shapes[size], generator=random) for size in sizes),
            dropped=torch.rand(self.batch_size, generator=random) < self.caption_dropout,
            sizes=sizes,
        )

    def stage_at(self, step: int) -> tuple[int, int]:
        """Which stage a step is in, and the step with which that began."""
        ends = [round(stage.until * self.steps) for stage in self.stages[:-1]]
        number = bisect_right(ends, step)
        return number, ends[number - 1] if number else 0

    def _places(self, pool: str, begin: int, count: int, items: Items, seen: Sequence[int] | None = None) -> Tensor:
        """Places begin .. begin + count of the endless row of shuffled rounds through a pool, or those seen of it."""
        if seen is not None:
            return torch.tensor(seen)[self._places(pool, begin, count, [items[place] for place in seen])]
        if not count:
            return torch.empty(0, dtype=torch.int64)
        first, last = begin // len(items), (begin + count - 1) // len(items)
        for known in [key for key in self._rounds if key[0] == pool and key[1] < first]:
            del self._rounds[known]
        rounds = [self._round(pool, number, count, items) for number in range(first, last + 1)]
        return torch.cat(rounds)[begin - first * len(items) :][:count]

    def _round(self, pool: str, number: int, count: int, items: Items) -> Tensor:
        """A shuffled round; a step takes `count` places of it, the first of which may belong to the one before."""
        if (pool, number) not in self._rounds:
            order = torch.randperm(len(items), generator=generator(self.seed, pool, number))
            groups = by_size(items[place] for place in order.tolist()) if len(set(items)) > 1 else {}
            begun = -number * len(items) % count
            self._rounds[pool, number] = order[_together(list(groups.values()), count, begun)] if groups else order
        return self._rounds[pool, number]


def _together(groups: Sequence[Sequence[int]], count: int, begun: int) -> Tensor:
    """All places, `count` of one group at a time; `begun` of those that are left over come first, the others last.

    The parts follow each other as their first places do.
    """
    parts = [list(group[at : at + count]) for group in groups for at in range(0, len(group), count)]
    whole = sorted(part for part in parts if len(part) == count)
    left = sorted(place for part in parts if len(part) < count for place in part)
    while len(left) < begun and whole:
        left += whole.pop()
    rows = [*left[:begun], *(place for part in whole for place in part), *left[begun:]]
    return torch.tensor(rows, dtype=torch.int64)


def stratified(count: int, random: torch.Generator) -> Tensor:
    """`count` quantiles (float64), each uniform on [0, 1), one from each of `count` equal parts of it.

    Less variance than independent draws (Kingma et al., Variational Diffusion Models, arXiv 2107.00630, sect. I.1).
    """
    within = torch.rand(count, generator=random, dtype=torch.float64)
    places = torch.randperm(count, generator=random)
    return (places + within) / max(count, 1)


def generator(seed: int, *what: object) -> torch.Generator:
    """A CPU generator for one purpose, unrelated to those of any other seed or purpose."""
    digest = hashlib.sha256(":".join(map(str, (seed, *what))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
