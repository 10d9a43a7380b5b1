"""Averaged GEM (Chaudhry et al., arXiv 1812.00420, eq. 10): no step may raise the mean loss on what is remembered.

    v = g - (g^T r / r^T r) r   where g^T r < 0, and g elsewhere

r (P,) is the gradient over a random part of the memory, other items each step, with timesteps and noise of their own.
With `rehearse` r is added to v, so that the step also learns from what it remembers: to project the sum of both
gradients instead, as replay beside this rule would, hardly ever changes it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cl_steps.config import Block, Count
from cl_steps.learning.methods.gem import TINY, Counting
from cl_steps.learning.methods.method import Made, Method, Tensors, Trainee
from cl_steps.learning.plan import generator


class Knobs(Block):
    """`rows` items are remembered a step."""

    rows: Count = 16
    rehearse: bool = True


class AGem(Counting):
    """The rule; without anything remembered it changes nothing."""

    def __init__(self, knobs: Knobs, trainee: Trainee) -> None:
        super().__init__(trainee)
        self._knobs = knobs
        self._step = torch.zeros((), dtype=torch.int64)

    @property
    def state(self) -> Tensors:
        """See `Rule`."""
        return {**super().state, "step": self._step}

    def __call__(self, trainee: Trainee, gradient: Tensor) -> None:
        """Project the gradient, in place; nothing waits for the device."""
        pool, step = trainee.pools.old, int(self._step)
        self._step += 1
        if not len(pool):
            return
        places = torch.randperm(len(pool), generator=generator(trainee.seed, "memory", step))[: self._knobs.rows]
        memory = trainee.gradient_of(pool, trainee.plan_of(pool, places, "memory noise", step))
        changed, share = excess(gradient, memory)
        self.count(changed)
        gradient -= (share - int(self._knobs.rehearse)) * memory


def excess(gradient: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Whether a gradient (P,) is against a memory's (P,), and what share of that is to be taken away."""
    along = gradient @ memory
    changed = along < 0
    return changed.long(), torch.where(changed, along / memory.square().sum().clamp(min=TINY), torch.zeros_like(along))


METHOD = Method(
    "A-GEM: Chaudhry et al., arXiv 1812.00420, eq. 10",
    Knobs,
    lambda knobs, trainee, _: Made(rules=(AGem(knobs, trainee),)),
    remembers=True,
)
