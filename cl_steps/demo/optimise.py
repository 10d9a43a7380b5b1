"""The one training loop of the demonstration's own models: AdamW, a warm-up and a cosine, an average of the weights."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

WARMUP_STEPS = 50
GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train; `average` is the decay of the running mean of the weights, 0 for none."""

    steps: int
    peak_rate: float
    average: float = 0.0
    weight_decay: float = 1e-3


def rate_at(step: int, plan: Plan) -> float:
    """The learning rate of a step: linear warm-up, then a cosine down to 1 % of the peak."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return plan.peak_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / plan.steps)))


def fit(parameters: Sequence[nn.Parameter], loss_at: Callable[[int], Tensor], plan: Plan, label: str) -> None:
    """Minimises `loss_at(step)` in place; with an average, leaves the averaged weights behind."""
    optimiser = torch.optim.AdamW(parameters, lr=plan.peak_rate, betas=(0.9, 0.99), weight_decay=plan.weight_decay)
    mean = [parameter.detach().clone() for parameter in parameters]
    for step in (bar := tqdm(range(plan.steps), desc=label, mininterval=1.0)):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, plan)
        loss = loss_at(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM)
        optimiser.step()
        _move_mean(mean, parameters, min(plan.average, (1 + step) / (10 + step)))
        bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    _copy(mean, parameters)


@torch.no_grad()
def _move_mean(mean: list[Tensor], parameters: Sequence[nn.Parameter], decay: float) -> None:
    """mean = decay * mean + (1 - decay) * parameters."""
    torch._foreach_lerp_(mean, [parameter.detach() for parameter in parameters], 1 - decay)


@torch.no_grad()
def _copy(source: Sequence[Tensor], target: Sequence[nn.Parameter]) -> None:
    torch._foreach_copy_(list(target), list(source))
