"""How diffusers' scripts call their networks: Stable Diffusion, SDXL and Flux; `tests.benchmarks.beside` has the loop.

Each entry of SCRIPTS is the loss of a step on rows that are encoded already; each of ENCODERS draws rows as the script
does itself, by the autoencoder and the text encoders in its loop. Pixels and tokens lie on the device beforehand.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import DiffusionPipeline, FluxPipeline
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3
from torch import Tensor

from tests.benchmarks.beside import ITEMS, Batch, Loss, captions, mixed, noise_loss

PIXELS = 16
"""How many pictures lie on the device."""
GUIDANCE = 3.5


def stable_loss(pipeline: DiffusionPipeline, draw: Batch, dtype: torch.dtype, side: int) -> Loss:
    """train_text_to_image_lora.py."""
    del side
    unet = mixed(pipeline.unet, dtype, pipeline.unet.device)
    return noise_loss(pipeline.scheduler.config, draw, lambda noisy, t, told: unet(noisy, t, told["prompt_embeds"]))


def stable_xl_loss(pipeline: DiffusionPipeline, draw: Batch, dtype: torch.dtype, side: int) -> Loss:
    """train_text_to_image_lora_sdxl.py."""
    unet, device = mixed(pipeline.unet, dtype, pipeline.unet.device), pipeline.unet.device

    def predict(noisy: Tensor, t: Tensor, told: dict[str, Tensor]) -> Tensor:
        one = [torch.tensor([[side, side, 0, 0, side, side]]).to(device, dtype) for _ in noisy]
        added = {"time_ids": torch.cat(one), "text_embeds": told["pooled_prompt_embeds"]}
        return unet(noisy, t, told["prompt_embeds"], added_cond_kwargs=added)

    return noise_loss(pipeline.scheduler.config, draw, predict)


def flux_loss(pipeline: DiffusionPipeline, draw: Batch, dtype: torch.dtype, side: int) -> Loss:
    """train_dreambooth_lora_flux.py, with its weighting scheme `none`."""
    del side
    transformer, schedule = pipeline.transformer, copy.deepcopy(pipeline.scheduler)
    device, network = transformer.device, mixed(transformer, dtype, transformer.device)
    scale = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)

    def levels(t: Tensor) -> Tensor:
        timesteps = schedule.timesteps.to(device)
        places = [(timesteps == one).nonzero().item() for one in t]
        return schedule.sigmas.to(device, dtype)[places].view(-1, 1, 1, 1)

    def loss() -> Tensor:
        x0, told = draw()
        rows, channels, height, width = x0.shape
        ids = FluxPipeline._prepare_latent_image_ids(rows, height // 2, width // 2, device, dtype)
        noise = torch.randn_like(x0)
        u = compute_density_for_timestep_sampling("none", rows, logit_mean=0.0, logit_std=1.0, mode_scale=1.29)
        t = schedule.timesteps[(u * schedule.config.num_train_timesteps).long()].to(device)
        sigmas = levels(t)
        output = network(
            hidden_states=FluxPipeline._pack_latents((1 - sigmas) * x0 + sigmas * noise, rows, channels, height, width),
            timestep=t / 1000,
            guidance=torch.tensor([GUIDANCE], device=device).expand(rows),
            pooled_projections=told["pooled_prompt_embeds"],
            encoder_hidden_states=told["prompt_embeds"],
            txt_ids=torch.zeros(told["prompt_embeds"].shape[1], 3, device=device, dtype=dtype),
            img_ids=ids,
        )
        output = FluxPipeline._unpack_latents(output, height * scale, width * scale, scale)
        weights = compute_loss_weighting_for_sd3("none", sigmas)
        errors = weights.float() * (output.float() - (noise - x0).float()) ** 2
        return errors.reshape(rows, -1).mean(1).mean()

    return loss


def stable_encoding(pipeline: DiffusionPipeline, batch: int, dtype: torch.dtype, side: int) -> Batch:
    """The autoencoder in half precision, and the text encoder's last layer."""
    device = pipeline.unet.device
    vae, encoder = pipeline.vae.to(device, dtype), pipeline.text_encoder.to(device)
    pixels, tokens = _pixels(side, device), _tokens(pipeline.tokenizer, device)

    def draw() -> tuple[Tensor, dict[str, Tensor]]:
        latents = vae.encode(pixels[_rows(batch, PIXELS, device)].to(dtype)).latent_dist.sample()
        told = encoder(tokens[_rows(batch, ITEMS, device)], return_dict=False)[0]
        return latents * vae.config.scaling_factor, {"prompt_embeds": told}

    return draw


def stable_xl_encoding(pipeline: DiffusionPipeline, batch: int, dtype: torch.dtype, side: int) -> Batch:
    """The autoencoder in float32, and the last layer but one of two text encoders."""
    device = pipeline.unet.device
    vae, pixels = pipeline.vae.to(device, torch.float32), _pixels(side, device)
    readers = [
        (pipeline.text_encoder.to(device), _tokens(pipeline.tokenizer, device)),
        (pipeline.text_encoder_2.to(device), _tokens(pipeline.tokenizer_2, device)),
    ]

    def draw() -> tuple[Tensor, dict[str, Tensor]]:
        latents = vae.encode(pixels[_rows(batch, PIXELS, device)]).latent_dist.sample() * vae.config.scaling_factor
        chosen, states = _rows(batch, ITEMS, device), []
        for encoder, tokens in readers:
            read = encoder(tokens[chosen], output_hidden_states=True, return_dict=False)
            states.append(read[-1][-2])
        return latents.to(dtype), {"prompt_embeds": torch.cat(states, dim=-1), "pooled_prompt_embeds": read[0]}

    return draw


def _pixels(side: int, device: torch.device) -> Tensor:
    return torch.rand(PIXELS, 3, side, side, device=device) * 2 - 1


def _tokens(tokenizer: Any, device: torch.device) -> Tensor:
    given = {"padding": "max_length", "truncation": True, "max_length": tokenizer.model_max_length}
    tokens: Tensor = tokenizer(list(captions()), return_tensors="pt", **given).input_ids
    return tokens.to(device)


def _rows(batch: int, count: int, device: torch.device) -> Tensor:
    return torch.randint(0, count, (batch,), device=device)


Maker = Callable[[DiffusionPipeline, Batch, torch.dtype, int], Loss]
SCRIPTS: Mapping[str, Maker] = {"SDXL": stable_xl_loss, "SD 1.5": stable_loss, "Flux of 2 B": flux_loss}
ENCODERS: Mapping[str, Callable[[DiffusionPipeline, int, torch.dtype, int], Batch]] = {
    "SDXL": stable_xl_encoding,
    "SD 1.5": stable_encoding,
}
