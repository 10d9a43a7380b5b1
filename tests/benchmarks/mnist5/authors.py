"""Distillation as the authors of arXiv 2509.23593 run it: at timesteps and with noise other than the step's own.

    L = mean over the replayed items of || student(x_s, s, c) - teacher(x_s, s, c) ||^2 / n,     s, noise drawn anew

so that a step has a second pass of the student. It is here to be compared with, and in no line's parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from cl_steps.config import Amount, Block
from cl_steps.learning.learner import STUDENT, Learner
from cl_steps.learning.methods.method import TEACHER, Forward, Made, Method, Over, Tensors, Trainee
from cl_steps.models.model import Denoiser


class Knobs(Block):
    """How much it counts: their 1.0 beside a mean over new and generated items is 2.0 beside the sum of two means."""

    weight: Amount = 2.0


@dataclass(frozen=True)
class SecondPass:
    """The term, on the same pictures as the step's."""

    weight: float
    learner: Learner
    name: str = "second_pass"
    over: Over = "replayed"

    def __call__(self, denoiser: Denoiser, forward: Forward) -> Tensor:
        """0 where student and teacher agree."""
        rows, pool = forward.rows(self.over), self.learner.replay
        conditions = forward.conditions[rows]
        if not len(conditions):
            return forward.output.new_zeros(())
        places = self.learner.planner.plan(self.learner.step).replay
        plan = self.learner.plan_of(pool, places, "second pass", self.learner.step)
        x0, noise = torch.stack([pool.latents[place] for place in places.tolist()]), torch.stack(plan.noise)
        x0, noise, t = (tensor.to(denoiser.device) for tensor in (x0, noise, denoiser.schedule.at(plan.u)))
        x_t = denoiser.schedule.add_noise(x0, noise, t)
        with torch.no_grad():
            taught = denoiser.predict(x_t, t, conditions, TEACHER)
        return mse_loss(denoiser.predict(x_t, t, conditions, STUDENT), taught)


def made(knobs: Knobs, learner: Trainee, kept: Tensors) -> Made:
    """The term."""
    del kept
    assert isinstance(learner, Learner)
    return Made(terms=(SecondPass(knobs.weight, learner),))


METHOD = Method(
    "Generative distillation, as arXiv 2509.23593 runs it",
    Knobs,
    made,
    teaches=True,
)
