"""What each training step looks at: items, timesteps, noise and dropped captions, from (seed, step) alone.

So a run that was interrupted sees exactly what it would have seen, and nothing needs to be saved about it.

n new and m replayed items a step, in this order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """One step: `new` (n,) and `replay` (m,) are places in their pools; the rest has n + m rows.

    `u` says of each row's timestep which share of all draws lies below it: the model's schedule knows the timestep.
    """

    new: Tensor
    replay: Tensor
    u: Tensor
    noise: Tensor
    dropped: Tensor


@dataclass(frozen=True)
class Planner:
    """Plans steps of `batch_size` items: half new and half replayed, or all new where nothing is replayed.

    An odd item is a new one. Each pool is gone through in a new random order again and again, so that no item is seen
    twice before all are seen once.
    """

    seed: int
    num_new: int
    num_replay: int
    batch_size: int
    latent_shape: tuple[int, ...]
    caption_dropout: float

    def plan(self, step: int) -> Plan:
        """The plan of a step, counted from 0."""
        num_replay = self.batch_size // 2 if self.num_replay else 0
        num_new = self.batch_size - num_replay
        random = generator(self.seed, "step", step)
        return Plan(
            new=self._places("new", step * num_new, num_new, self.num_new),
            replay=self._places("replay", step * num_replay, num_replay, self.num_replay),
            u=torch.cat([stratified(count, random) for count in (num_new, num_replay)]),
            noise=torch.randn((self.batch_size, *self.latent_shape), generator=random),
            dropped=torch.rand(self.batch_size, generator=random) < self.caption_dropout,
        )

    def _places(self, pool: str, begin: int, count: int, size: int) -> Tensor:
        """Places begin .. begin + count of the endless row of shuffled rounds through a pool."""
        if not count:
            return torch.empty(0, dtype=torch.int64)
        first, last = begin // size, (begin + count - 1) // size
        rounds = [
            torch.randperm(size, generator=generator(self.seed, pool, round_)) for round_ in range(first, last + 1)
        ]
        return torch.cat(rounds)[begin - first * size :][:count]


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
