"""Distillation: nothing to pay where student and teacher agree, and the gradient is that of the formula."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from cl_steps.learning.methods.distillation import Distillation
from cl_steps.learning.methods.method import STUDENT, TEACHER, Forward
from cl_steps.models.model import Denoiser
from tests.learning.conftest import LORA
from tests.tiny import disturb


def forward_of(denoiser: Denoiser, num_new: int = 2) -> Forward:
    random = torch.Generator().manual_seed(0)
    x_t, t = torch.randn((5, 4, 8, 8), generator=random), torch.tensor([5, 900, 10, 300, 999])
    conditions = denoiser.encode_prompts(["a", "b", "", "c", "d"])
    return Forward(x_t, t, conditions, denoiser.predict(x_t, t, conditions, STUDENT), num_new)


def prepare(denoiser: Denoiser) -> None:
    for name in (TEACHER, STUDENT):
        denoiser.adapters.add_fresh(name, LORA, seed=0)
        disturb(denoiser, name)
    denoiser.adapters.train(STUDENT)


def test_equal_models_pay_nothing_and_feel_nothing(denoiser: Denoiser) -> None:
    prepare(denoiser)
    loss = Distillation(1.0)(denoiser, forward_of(denoiser))
    assert loss.item() < 1e-11
    torch.autograd.backward(loss)
    gradient = denoiser.adapters.flat(STUDENT).grad
    assert gradient is not None
    assert float(gradient.abs().max()) < 1e-5


def test_it_is_the_mean_square_over_the_replayed_rows_alone(denoiser: Denoiser) -> None:
    prepare(denoiser)
    disturb(denoiser, STUDENT, seed=9)
    forward = forward_of(denoiser)
    taught = denoiser.predict(forward.x_t, forward.t, forward.conditions, TEACHER)
    expected = (forward.output - taught)[2:].square().mean()
    torch.testing.assert_close(Distillation(1.0)(denoiser, forward), expected)
    changed = replace(forward, output=torch.cat([forward.output[:2] + 7, forward.output[2:]]))
    torch.testing.assert_close(Distillation(1.0)(denoiser, changed), expected)
    assert Distillation(1.0)(denoiser, replace(forward, num_new=5)).item() == 0


def test_its_gradient_is_that_of_finite_differences(denoiser: Denoiser) -> None:
    prepare(denoiser)
    disturb(denoiser, STUDENT, seed=9)
    weights = denoiser.adapters.flat(STUDENT)
    direction = torch.randn(weights.shape, generator=torch.Generator().manual_seed(3))
    (gradient,) = torch.autograd.grad(Distillation(1.0)(denoiser, forward_of(denoiser)), weights)
    slope = float((gradient * direction).sum())
    start, reach = weights.detach().clone(), 1e-3

    def loss_at(step: float) -> Tensor:
        denoiser.adapters.put(STUDENT, start + step * direction)
        return Distillation(1.0)(denoiser, forward_of(denoiser)).detach().double()

    difference = float(loss_at(reach) - loss_at(-reach)) / (2 * reach)
    assert abs(difference - slope) < 0.02 * abs(slope)
