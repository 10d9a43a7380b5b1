"""Elastic weight consolidation: a quadratic that holds the weights which what was learnt before depends on.

Diagonal (Kirkpatrick et al., arXiv 1612.00796, eq. 3; online as Schwarz et al., arXiv 1805.06370, eq. 9, decay gamma):

    1/2 sum_i F_i (theta_i - theta*_i)^2,     F = E[g^2]

Rank 1 (Avoid Catastrophic Forgetting with Rank-1 Fisher from Diffusion Models, arXiv 2509.23593), one triple a version,
the last `versions` of them:

    1/2 sum_k c_k (mu_k^T (theta - theta*_k))^2,     mu = E[g],     c = E[(mu^T g)^2] / ||mu||^4

c minimises || E[g g^T] - c mu mu^T ||_F. g (P,) is the gradient of one item's denoising loss at its own timestep and
noise, at the weights that were promoted, which are theta*. In the space of the adapter, so that P is its size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from cl_steps.config import Amount, Block, Count
from cl_steps.learning.methods.method import STUDENT, Forward, Made, Method, Over, Tensors, Trainee
from cl_steps.learning.pools import Pool
from cl_steps.models.model import Denoiser
from cl_steps.progress import progress


class Knobs(Block):
    """`draws` items with a timestep and noise each make a Fisher; `gamma` is what is left of it a version later."""

    weight: Amount = 15_000.0
    fisher: Literal["rank1", "diagonal"] = "rank1"
    draws: Count = 256
    versions: Annotated[int, Field(ge=1, le=20)] = 5
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0


@dataclass(frozen=True)
class Diagonal:
    """The term of a diagonal Fisher (P,) and its theta* (P,)."""

    weight: float
    fisher: Tensor
    at: Tensor
    name: str = "ewc"
    over: Over = "weights"

    def __call__(self, denoiser: Denoiser, forward: Forward) -> Tensor:
        """0 at theta*."""
        del forward
        moved = denoiser.adapters.flat(STUDENT) - self.at
        return 0.5 * (self.fisher * moved.square()).sum()


@dataclass(frozen=True)
class Rank1:
    """The term of K triples: mu (K, P), c (K,), theta* (K, P)."""

    weight: float
    mu: Tensor
    c: Tensor
    at: Tensor
    name: str = "ewc"
    over: Over = "weights"

    def __call__(self, denoiser: Denoiser, forward: Forward) -> Tensor:
        """0 where the weights have moved along no mu."""
        del forward
        moved = denoiser.adapters.flat(STUDENT) - self.at
        return 0.5 * (self.c * (self.mu * moved).sum(dim=1).square()).sum()


def made(knobs: Knobs, trainee: Trainee, kept: Tensors) -> Made:
    """The term, or none where a line knows nothing yet."""
    here = {name: value.to(trainee.student.device) for name, value in kept.items()}
    if knobs.fisher == "diagonal" and "fisher" in here:
        return Made(terms=(Diagonal(knobs.weight, here["fisher"], here["at"]),))
    if knobs.fisher == "rank1" and "mu" in here:
        return Made(terms=(Rank1(knobs.weight, here["mu"], here["c"], here["at"]),))
    return Made()


def keep(knobs: Knobs, trainee: Trainee, learnt: Pool, kept: Tensors) -> Tensors:
    """The Fisher of what was learnt, put to what there was."""
    at = trainee.student.detach().cpu().clone()
    if knobs.fisher == "diagonal":
        fisher = torch.zeros_like(at)
        for g in gradients(knobs.draws, trainee, learnt):
            fisher += g.square() / knobs.draws
        return {"fisher": fisher + knobs.gamma * kept["fisher"] if "fisher" in kept else fisher, "at": at}
    mu, c = rank1(lambda: gradients(knobs.draws, trainee, learnt))
    new = {"mu": mu[None], "c": c[None], "at": at[None]}
    before = kept if kept.keys() == new.keys() else {name: value[:0] for name, value in new.items()}
    return {name: torch.cat([before[name], new[name]])[-knobs.versions :].contiguous() for name in new}


def rank1(again: Callable[[], Iterable[Tensor]]) -> tuple[Tensor, Tensor]:
    """(mu (P,), c ()) of gradients (P,) each, which `again` gives twice, one at a time; c is 0 where they cancel.

    All of them together would be many times the adapter's size.
    """
    mu, count = torch.zeros((), dtype=torch.float64), 0
    for g in again():
        mu, count = mu + g.double(), count + 1
    mu /= count
    norm = mu.square().sum()
    if not norm > 0:
        return mu.float(), norm.float()
    along = sum(float(g.double() @ mu) ** 2 for g in again()) / count
    return mu.float(), (along / norm.square()).float()


def gradients(draws: int, trainee: Trainee, pool: Pool) -> Iterator[Tensor]:
    """One item's gradient at a time, on the CPU; items in turns."""
    for number in progress(range(draws), draws, "update: Fisher"):
        place = torch.tensor([number % len(pool)])
        yield trainee.gradient_of(pool, trainee.plan_of(pool, place, "fisher", number)).cpu()


METHOD = Method(
    "EWC: Kirkpatrick et al., arXiv 1612.00796, eq. 3; rank 1 for diffusion models: arXiv 2509.23593",
    Knobs,
    made,
    remembers=True,
    keep=keep,
)
