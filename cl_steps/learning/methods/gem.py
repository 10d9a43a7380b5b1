"""Gradient episodic memory (Lopez-Paz and Ranzato, arXiv 1706.08840, eq. 8 to 12): no step may raise the loss on what
each slice remembers, to first order.

With the gradients of the slices' memories as rows of G (T, P) and a step's gradient g (P,), the step takes

    argmin_v 1/2 ||v - g||^2   with   G v >= 0,          v = g + G^T lambda,
    lambda = argmin_{lambda >= 0} 1/2 lambda^T G G^T lambda + (G g)^T lambda

which needs only the Gram matrix (T, T) and G g (T,): an exact non-negative least squares problem. A memory's timesteps
and noise are fixed, so that its gradient changes with the weights alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

from cl_steps.config import Amount, Block, Count
from cl_steps.learning.methods.method import Made, Method, Tensors, Trainee
from cl_steps.learning.plan import Plan, generator
from cl_steps.learning.pools import Pool

TINY = 1e-12


class Knobs(Block):
    """`rows` items of each slice are remembered; `margin` is the paper's gamma, which is added to lambda."""

    rows: Count = 16
    margin: Amount = 0.0


class Counting:
    """Counts steps, and those that were changed."""

    def __init__(self, trainee: Trainee) -> None:
        self._counts = torch.zeros(2, dtype=torch.int64, device=trainee.student.device)

    @property
    def state(self) -> Tensors:
        """See `Rule`."""
        return {"counts": self._counts}

    def count(self, changed: Tensor) -> None:
        """One step more."""
        self._counts += torch.stack([torch.ones_like(changed), changed])

    def figures(self) -> Mapping[str, Any]:
        """See `Rule`."""
        steps, changed = self._counts.tolist()
        return {"projected_share": changed / steps if steps else None}


@dataclass(frozen=True)
class Memory:
    """Items of a slice, with timesteps and noise that stay."""

    pool: Pool
    plan: Plan

    @classmethod
    def of(cls, trainee: Trainee, name: str, rows: int) -> Memory:
        """So many items of a slice, at random."""
        pool = trainee.pools.old
        places = torch.tensor([place for place, own in enumerate(pool.slices) if own == name])
        chosen = torch.randperm(len(places), generator=generator(trainee.seed, "memory", name))[:rows]
        return cls(pool, trainee.plan_of(pool, places[chosen], "memory", name))

    def gradient(self, trainee: Trainee) -> Tensor:
        """(P,), at the student as it is."""
        return trainee.gradient_of(self.pool, self.plan)


class Gem(Counting):
    """The rule; without anything remembered it changes nothing."""

    def __init__(self, knobs: Knobs, trainee: Trainee) -> None:
        super().__init__(trainee)
        names = sorted(set(trainee.pools.old.slices))
        self._margin = knobs.margin
        self._memories = [Memory.of(trainee, name, knobs.rows) for name in names]

    def __call__(self, trainee: Trainee, gradient: Tensor) -> None:
        """Project the gradient, in place; one exchange with the CPU, of T x (T + 1) numbers."""
        if not self._memories:
            return
        rows = torch.stack([memory.gradient(trainee) for memory in self._memories])
        # Rows of length 1 have the same half spaces and a Gram matrix that is well scaled.
        rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=TINY)
        products = (rows @ torch.cat([rows, gradient[None]]).t()).double().cpu().numpy()
        weights = multipliers(products[:, :-1], products[:, -1], self._margin)
        self.count(torch.tensor(int(weights.any()), device=gradient.device))
        gradient += torch.from_numpy(weights).to(gradient) @ rows


def multipliers(gram: NDArray[np.float64], along: NDArray[np.float64], margin: float = 0.0) -> NDArray[np.float64]:
    """lambda (T,) of the dual, from G G^T (T, T) and G g (T,); 0 where g keeps to all half spaces.

    With the symmetric root A of the Gram matrix and A b = -G g the dual is 1/2 ||A lambda - b||^2 and a constant.
    """
    if not np.isfinite(gram).all() or not np.isfinite(along).all() or (along >= 0).all():
        return np.zeros(len(along))
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 0)
    known = values > values.max() * len(values) * np.finfo(np.float64).eps
    root = vectors * np.sqrt(values)
    inverse = np.where(known, 1 / np.sqrt(np.where(known, values, 1)), 0)
    found, _ = nnls(root.T, -(inverse * (vectors.T @ along)))
    return np.asarray(found + margin)


METHOD = Method(
    "GEM: Lopez-Paz and Ranzato, arXiv 1706.08840, eq. 8 to 12",
    Knobs,
    lambda knobs, trainee, _: Made(rules=(Gem(knobs, trainee),)),
    remembers=True,
)
