"""Distillation from the champion on replayed items (Masip et al., Continual Learning of Diffusion Models with
Generative Distillation, arXiv 2311.14028, eq. 5).

L = mean over the replayed items of || output_student(x_t, t, c) - output_teacher(x_t, t, c) ||^2 / n

n is how many numbers a latent has. Both see the same x_t, t and caption (dropped or not); both outputs are raw,
unguided and in the model's own parametrisation. Real replayed items take the place of the paper's samples of the
teacher.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from cl_steps.config import Amount, Block
from cl_steps.learning.methods.method import TEACHER, Forward, Made, Method, Over
from cl_steps.models.model import Denoiser


class Knobs(Block):
    """How much it counts beside the denoising losses, which count 1 each."""

    weight: Amount = 1.0


@dataclass(frozen=True)
class Distillation:
    """The term; it needs an adapter called `teacher` beside the student's."""

    weight: float
    name: str = "distillation"
    over: Over = "replayed"

    def __call__(self, denoiser: Denoiser, forward: Forward) -> Tensor:
        """0 where student and teacher agree; one pass of the teacher, over its rows only."""
        rows = forward.rows(self.over)
        output, conditions = forward.output[rows], forward.conditions[rows]
        if not len(output):
            return forward.output.new_zeros(())
        with torch.no_grad():
            taught = denoiser.predict(forward.x_t[rows], forward.t[rows], conditions, TEACHER)
        return mse_loss(output, taught)


METHOD = Method(
    "Generative distillation, on replayed items: Masip et al., arXiv 2311.14028, eq. 5",
    Knobs,
    lambda knobs, *_: Made(terms=(Distillation(knobs.weight),)),
    teaches=True,
)
