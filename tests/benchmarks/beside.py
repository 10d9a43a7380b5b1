"""A training step of ours, and one of diffusers' own scripts on the same network: what `step.py` and the trial measure.

Theirs is the inner loop of examples/text_to_image/train_text_to_image_lora.py, ..._lora_sdxl.py and
examples/dreambooth/train_dreambooth_lora_flux.py, as they are for diffusers 0.42.1: peft's layers in the base's
precision, AdamW of each parameter, `autocast` as accelerate puts it around the network's forward pass, clipping, a
rate's schedule, the loss read at each step; no average. B rows a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from diffusers import DDPMScheduler
from diffusers.optimization import get_scheduler
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from cl_steps.config import Lora, Update
from cl_steps.learning.learner import Learner
from cl_steps.learning.methods.catalogue import Methods
from cl_steps.learning.methods.method import STUDENT, TEACHER
from cl_steps.learning.pools import EMPTY, Pool, Pools
from cl_steps.models.model import Denoiser

STEPS = 1000
"""Of the training that a measured step is one of."""
ITEMS = 64
Step = Callable[[], object]
Batch = Callable[[], tuple[Tensor, dict[str, Tensor]]]
"""Draws latents (B, ...) and what the network is told of their captions, both on the device."""
Loss = Callable[[], Tensor]


def latents_of(denoiser: Denoiser, shape: tuple[int, ...] | None = None) -> Tensor:
    """(ITEMS, ...) random numbers in place of encoded pictures, on the CPU."""
    return torch.randn((ITEMS, *(shape or denoiser.latent_shape)), generator=torch.Generator().manual_seed(0))


def captions() -> tuple[str, ...]:
    """ITEMS of them."""
    return tuple(f"a {number}" for number in range(ITEMS))


def ours(denoiser: Denoiser, lora: Lora, batch: int, *, replays: bool = False) -> Learner:
    """This package's training, plain or half of each step replayed, with distillation from a teacher."""
    pool = Pool(latents_of(denoiser), captions(), ("a",) * ITEMS, (denoiser.size,) * ITEMS)
    method = "replay_distill" if replays else "finetune"
    update = Update(steps=STEPS, batch_size=batch, method=method, lora=lora, checkpoint_every=STEPS)
    for name in (STUDENT, TEACHER) if replays else (STUDENT,):
        denoiser.adapters.add_fresh(name, lora, 0)
    return Learner(denoiser, Pools(pool, pool if replays else EMPTY), update, seed=0, methods=Methods.of(update))


def add_peft(network: Any, lora: Lora) -> list[nn.Parameter]:
    """Put peft's layers on a network; returns their parameters."""
    layers = {"r": lora.rank, "lora_alpha": lora.alpha, "target_modules": list(lora.target_modules)}
    network.add_adapter(LoraConfig(**layers, init_lora_weights="gaussian"))
    return [parameter for parameter in network.train().parameters() if parameter.requires_grad]


def theirs(loss: Loss, parameters: Iterable[nn.Parameter], optimizer: torch.optim.Optimizer | None = None) -> Step:
    """A step of a script."""
    parameters = list(parameters)
    own = optimizer or torch.optim.AdamW(parameters, 1e-4, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    rate = get_scheduler("cosine", own, num_warmup_steps=50, num_training_steps=STEPS)

    def step() -> float:
        value = loss()
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        own.step()
        rate.step()
        own.zero_grad()
        return value.detach().item()

    return step


def mixed(network: Callable[..., Any], dtype: torch.dtype, device: torch.device) -> Callable[..., Tensor]:
    """A network as accelerate prepares it for a mixed precision: in half of it autocast, with outputs in float32."""

    def call(*args: Any, **kwargs: Any) -> Tensor:
        with nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype):
            output: Tensor = network(*args, **kwargs, return_dict=False)[0]
        return output.float()

    return call


def encoded(denoiser: Denoiser, batch: int, latents: Tensor) -> Batch:
    """Rows of latents and captions that are encoded already, all of them on the device."""
    rows = denoiser.encode_prompts(captions())
    held = latents.to(denoiser.device)
    told = {name: torch.cat([row[name] for row in rows]).to(denoiser.device) for name in rows[0]}

    def draw() -> tuple[Tensor, dict[str, Tensor]]:
        chosen = torch.randint(0, ITEMS, (batch,), device=denoiser.device)
        return held[chosen], {name: value[chosen] for name, value in told.items()}

    return draw


def noise_loss(config: Any, draw: Batch, predict: Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]) -> Loss:
    """The loss of the scripts for Stable Diffusion, of a scheduler's configuration; its mean is read at once."""
    schedule = DDPMScheduler.from_config(config)

    def loss() -> Tensor:
        latents, told = draw()
        noise = torch.randn_like(latents)
        t = torch.randint(0, schedule.config.num_train_timesteps, (len(latents),), device=latents.device)
        noisy = schedule.add_noise(latents, noise, t)
        is_v = schedule.config.prediction_type == "v_prediction"
        target = schedule.get_velocity(latents, noise, t) if is_v else noise
        value = mse_loss(predict(noisy, t, told).float(), target.float())
        value.detach().item()
        return value

    return loss
