"""What a method of continual learning is made of; the training loop names none of them.

A method is one file with a `METHOD`. Of four kinds, and any of them go together:

    a term            adds to the loss                                              `Term`
    a gradient rule   changes the gradient of a step before it is clipped            `Rule`
    replay            gives each step rows that the line knows                       `Method.replays`
    a schedule        says what a step looks at                                      `plan.Stage`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from cl_steps.config import Block
from cl_steps.learning.plan import Plan, Stage
from cl_steps.learning.pools import Pool, Pools
from cl_steps.models.captions import Conditions
from cl_steps.models.model import Denoiser

STUDENT = "default"
"""The adapter that learns."""
TEACHER = "teacher"
"""The adapter that a method which `teaches` compares with: where the student began."""
Over = Literal["new", "replayed", "all", "weights"]
"""What a term is a mean over, so that a batch can be computed in parts and by several processes.

`weights`: nothing of the batch; each part computes it, and it counts once a step. The others are 0 without such rows.
"""
Tensors = Mapping[str, Tensor]


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

    def rows(self, over: Over) -> slice:
        """Those of a kind."""
        return {"new": slice(None, self.num_new), "replayed": slice(self.num_new, None)}.get(over, slice(None))


class Term(Protocol):
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


class Trainee(Protocol):
    """The learner, as methods see it."""

    @property
    def denoiser(self) -> Denoiser:
        """What is trained."""

    @property
    def student(self) -> nn.Parameter:
        """All weights that are trained, in one row (P,)."""

    @property
    def seed(self) -> int:
        """Of all that is random."""

    @property
    def pools(self) -> Pools:
        """What the night learns from."""

    def plan_of(self, pool: Pool, places: Tensor, *what: object) -> Plan:
        """A step over these items of a pool alone, with timesteps and noise fixed by the seed and `what`."""

    def gradient_of(self, pool: Pool, plan: Plan) -> Tensor:
        """The gradient (P,) of the denoising loss over such a step, at the student as it is."""


class Rule(Protocol):
    """Changes a step's gradient: after it was summed over parts and processes, before it is clipped."""

    @property
    def state(self) -> Tensors:
        """What it counts, on the device: kept with checkpoints, and written to in place."""

    def __call__(self, trainee: Trainee, gradient: Tensor, /) -> None:
        """Change the gradient (P,) in place."""

    def figures(self) -> Mapping[str, Any]:
        """What the report says of it."""


@dataclass(frozen=True)
class Made:
    """What a method is for one night; `replayed` is what the denoising loss of replayed rows counts."""

    terms: tuple[Term, ...] = ()
    rules: tuple[Rule, ...] = ()
    stages: tuple[Stage, ...] = ()
    replayed: float = 1.0


class NoKnobs(Block):
    """Of a method that has none."""


@dataclass(frozen=True)
class Method:
    """A method, before a night.

    Attributes:
        paper: where it comes from, in words and with a number.
        knobs: what `update.methods.<its name>` may say.
        make: what it is for a night, from its knobs, the learner, and what the version before kept of it.
        replays: each step has rows that the line knows.
        remembers: it looks at rows that the line knows, in its own way.
        schedules: it says what a step looks at.
        teaches: the champion's adapter is loaded beside the student's, as `TEACHER`.
        keep: what a version keeps of it, from its knobs, the learner as promoted, the items that were learnt, and what
            the version before kept. Before a line's first night with it, it is made from what the line knows.
    """

    paper: str
    knobs: type[Block] = NoKnobs
    make: Callable[[Any, Trainee, Tensors], Made] = lambda *_: Made()
    replays: bool = False
    remembers: bool = False
    schedules: bool = False
    teaches: bool = False
    keep: Callable[[Any, Trainee, Pool, Tensors], Tensors] | None = None
