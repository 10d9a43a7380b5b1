"""What a method of continual learning is made of; the training loop names none of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from cl_steps.config import Update
from cl_steps.models.captions import Conditions
from cl_steps.models.model import Denoiser

TEACHER = "teacher"
"""The adapter that a method which `teaches` compares with: where the student began."""
Over = Literal["replayed", "step"]
"""What a term is a mean over, so that a batch can be computed in parts and by several processes.

`replayed`: the replayed rows (0 without any). `step`: nothing of the batch, as a term of the weights is; each part
computes it, and it counts once a step.
"""


@dataclass(frozen=True)
class Forward:
    """The student's forward pass of one step: N rows, the first `num_new` new, the rest replayed.

    `x_t`, `output` (N, ...), `t` (N,), `conditions` of N captions; `output` is raw and unguided and carries gradients.
    """

    x_t: Tensor
    t: Tensor
    conditions: Sequence[Conditions]
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
        """What the report calls it: `loss_<name>`."""

    @property
    def weight(self) -> float:
        """Its weight in the loss."""

    @property
    def over(self) -> Over:
        """What it is a mean over."""

    def __call__(self, denoiser: Denoiser, forward: Forward, /) -> Tensor:
        """The unweighted term, a scalar with gradients for the student."""


@dataclass(frozen=True)
class Method:
    """Whether old items are replayed, which terms are added to the loss, and whether the guard may back off.

    `teaches`: the champion's adapter is loaded beside the student's, as `TEACHER`. `penalties` reads its own knobs.
    """

    replays: bool
    guarded: bool
    teaches: bool = False
    penalties: Callable[[Update], tuple[Penalty, ...]] = lambda _: ()
