"""Noise and target, as the scheduler says that a pipeline's folder names.

Variance preserving (DDPM, arXiv 2006.11239), t whole in 0..T-1:
    x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) noise;  the target is noise, x0 or v (arXiv 2202.00512)
Rectified flow (arXiv 2209.03003), t = T sigma real in (0, T]:
    x_t = (1 - sigma) x0 + sigma noise;              the target is noise - x0

Both say which timestep a share u of all training draws lies below (N,), uniform on [0, 1): the quantile of the density
with which the family trains.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from cl_steps.errors import UsageError

PREDICTIONS = ("epsilon", "v_prediction", "sample")
FLOW = "flow_prediction"
GRID = 1000
"""At how many points the pipeline's own shift of the noise levels is asked for."""


class Schedule(Protocol):
    """How noise is put in, and what is then to be predicted; N rows."""

    @property
    def prediction(self) -> str:
        """What the model predicts."""

    def at(self, u: Tensor) -> Tensor:
        """The timesteps (N,) at quantiles u (N,) float64."""

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t (N, ...)."""

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the model should predict (N, ...)."""

    def digest(self) -> str:
        """SHA-256 of what two models must share for their losses to compare."""


@dataclass(frozen=True)
class VariancePreserving:
    """`signal` and `noise` are sqrt(abar) and sqrt(1 - abar), each (T,) float32 on the model's device."""

    prediction: str
    signal: Tensor
    noise: Tensor

    def at(self, u: Tensor) -> Tensor:
        """Uniform over all timesteps, int64."""
        return (u * len(self.signal)).long().clamp_(max=len(self.signal) - 1)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """See `Schedule`; DDPM's eq. 4."""
        return _rows(self.signal[t], x0) * x0 + _rows(self.noise[t], x0) * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Noise, x0, or v = sqrt(abar_t) noise - sqrt(1 - abar_t) x0."""
        if self.prediction == "v_prediction":
            return _rows(self.signal[t], x0) * noise - _rows(self.noise[t], x0) * x0
        return noise if self.prediction == "epsilon" else x0

    def digest(self) -> str:
        """See `Schedule`."""
        return digest(self.signal, self.noise)


@dataclass(frozen=True)
class RectifiedFlow:
    """Noise levels drawn logit-normal (SD3, arXiv 2403.03206, eq. 19) and shifted as the pipeline's sampler does.

    Attributes:
        levels: (G,) float64, rising from 0 to 1: the sampler's noise level at evenly spaced places of its way, which
            holds the shift for the line's resolution.
        num_timesteps: T.
        inverted: whether t counts from noise to image (Mochi), so that x_t = sigma x0 + (1 - sigma) noise.
    """

    levels: Tensor
    num_timesteps: int
    inverted: bool = False
    prediction: str = "flow"

    def at(self, u: Tensor) -> Tensor:
        """Real timesteps, float32."""
        places = torch.special.ndtri(u.double().clamp(1e-6, 1 - 1e-6)).sigmoid() * (len(self.levels) - 1)
        below = places.long().clamp_(max=len(self.levels) - 2)
        levels = torch.lerp(self.levels[below], self.levels[below + 1], places - below)
        return ((1 - levels if self.inverted else levels) * self.num_timesteps).float()

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """See `Schedule`."""
        level = _rows(self._level(t), x0)
        return (1 - level) * x0 + level * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The derivative of x_t by sigma = t / T."""
        del t
        return x0 - noise if self.inverted else noise - x0

    def digest(self) -> str:
        """See `Schedule`."""
        return digest(self.levels, torch.tensor([float(self.num_timesteps), float(self.inverted)]))

    def _level(self, t: Tensor) -> Tensor:
        return 1 - t / self.num_timesteps if self.inverted else t / self.num_timesteps


def is_flow(scheduler: Any) -> bool:
    """Whether a scheduler's timesteps are noise levels of a rectified flow."""
    config = scheduler.config
    return (
        type(scheduler).__name__.startswith("FlowMatch")
        or bool(config.get("use_flow_sigmas"))
        or config.get("prediction_type") == FLOW
    )


def schedule_of(scheduler: Any, levels: Tensor, device: torch.device) -> Schedule:
    """What a pipeline's scheduler says; `levels` as in `RectifiedFlow`, used for one only.

    Raises:
        UsageError: it is of neither kind.
    """
    config = scheduler.config
    if is_flow(scheduler):
        return RectifiedFlow(levels, int(config["num_train_timesteps"]), bool(config.get("invert_sigmas")))
    prediction = str(config.get("prediction_type"))
    if getattr(scheduler, "alphas_cumprod", None) is None or prediction not in PREDICTIONS:
        raise UsageError(
            f"its scheduler is a {type(scheduler).__name__} that predicts {prediction!r:.40}: neither a variance "
            f"preserving one of {', '.join(PREDICTIONS)} nor a rectified flow"
        )
    alphas = scheduler.alphas_cumprod.to(device, torch.float64)
    return VariancePreserving(prediction, alphas.sqrt().float(), (1 - alphas).sqrt().float())


def digest(*tensors: Tensor) -> str:
    """SHA-256 over shapes and values."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(str(tuple(tensor.shape)).encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """(N,) as (N, 1, ..., 1) with as many dimensions as `like`."""
    return values.view(-1, *([1] * (like.dim() - 1)))
