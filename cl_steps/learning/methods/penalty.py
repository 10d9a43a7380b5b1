"""The interface of methods that add a term to the loss; the training loop names none of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from cl_steps.models.model import Denoiser


@dataclass(frozen=True)
class Forward:
    """The student's forward pass of one step: N rows, the first `num_new` new, the rest replayed.

    `x_t`, `output` (N, C, h, w), `t` (N,), `embeddings` (N, L, D); `output` is raw and unguided and carries gradients.
    """

    x_t: Tensor
    t: Tensor
    embeddings: Tensor
    output: Tensor
    num_new: int

    @property
    def num_replayed(self) -> int:
        """How many rows are replayed."""
        return len(self.x_t) - self.num_new


class Penalty(Protocol):
    """A term of the loss that looks after what was learnt before."""

    @property
    def name(self) -> str:
        """What the report calls it."""

    @property
    def weight(self) -> float:
        """Its weight in the loss."""

    def __call__(self, denoiser: Denoiser, forward: Forward) -> Tensor:
        """The unweighted term, a scalar with gradients for the student.

        It is a mean over the replayed rows (0 without any), so that a batch can be computed in parts.
        """
