"""Trains the denoiser of the demonstration's base, on styles that its lines do not learn later.

A text encoder that is trained on a few names of styles is blind to a new one: with three styles "neon" came out as
"black", and nothing could then keep the two apart. So the text encoder keeps its first, random weights, under which all
words are about equally far apart (a real one has read enough to do the same); and the denoiser also sees practice
styles, and pictures in any colours whose captions name no style.
Shapes: N latents of (4, 8, 8), T = 16 tokens.
"""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn.functional import mse_loss
from transformers import CLIPTextModel, CLIPTokenizer

from cl_steps.demo.drawing import (
    BASE_STYLES,
    PLAIN_TEMPLATES,
    PRACTICE_LOOKS,
    TEMPLATES,
    TRAIN,
    caption,
    colours_of,
    digits_of,
    paint,
    plain_caption,
    random_colours,
    strokes_of,
)
from cl_steps.demo.networks import build_scheduler, build_text_encoder, build_unet
from cl_steps.demo.optimise import Plan, fit
from cl_steps.demo.train_vae import to_pixels

BATCH = 32
CAPTION_DROP = 0.1
PEAK_RATE = 2e-3
AVERAGE = 0.998
NAMED = (*BASE_STYLES, *PRACTICE_LOOKS)
BASE_SHARE = 3
"""Pictures of a base style for each of a practice style."""


@dataclass(frozen=True)
class Latents:
    """`values` (N, 4, 8, 8), scaled to unit spread, and `captions` (N,): the row of each in `caption_ids`."""

    values: Tensor
    captions: Tensor


def caption_ids(tokenizer: CLIPTokenizer) -> Tensor:
    """Token ids (9 * 10 * templates + 1, T) of all captions by style (the ninth has no name), digit and template.

    The last is empty.
    """
    templates = range(len(TEMPLATES))
    texts = [caption(digit, style, t) for style in NAMED for digit in range(10) for t in templates]
    texts += [plain_caption(digit, t % len(PLAIN_TEMPLATES)) for digit in range(10) for t in templates]
    ids: Tensor = tokenizer([*texts, ""], padding="max_length", truncation=True, return_tensors="pt").input_ids
    return ids


@torch.no_grad()
def cache_latents(vae: AutoencoderKL, copies: int, rng: np.random.Generator) -> Latents:
    """Latents of pictures of every `TRAIN` stroke; sets the scale of the autoencoder.

    `copies` in every base style and in colours without a name, half as many in every practice style.
    """
    values, captions = [], []
    for place, style in enumerate([*NAMED, None]):
        for _ in range(copies if style in (*BASE_STYLES, None) else copies // BASE_SHARE):
            colours = colours_of([style] * len(TRAIN), rng) if style else random_colours(len(TRAIN), rng)
            pixels = to_pixels(paint(strokes_of(TRAIN, rng), colours))
            values += [vae.encode(part).latent_dist.mean for part in torch.split(pixels, 100)]
            captions.append(torch.from_numpy((place * 10 + digits_of(TRAIN)) * len(TEMPLATES)))
    stacked = torch.cat(values)
    vae.register_to_config(scaling_factor=float(1 / stacked.std()))
    return Latents(stacked * vae.config.scaling_factor, torch.cat(captions))


def spread_timesteps(count: int, noise: torch.Generator) -> Tensor:
    """`count` timesteps, one from each equal share of 0..999."""
    return ((torch.arange(count) + torch.rand(count, generator=noise)) / count * 1000).long()


def pick_captions(first: Tensor, num_captions: int, noise: torch.Generator) -> Tensor:
    """A random wording for each caption (N,), or the empty caption, which is the last, for one in ten."""
    wording = first + torch.randint(len(TEMPLATES), first.shape, generator=noise)
    dropped = torch.rand(first.shape, generator=noise) < CAPTION_DROP
    return wording.masked_fill(dropped, num_captions - 1)


@dataclass(frozen=True)
class Denoiser:
    """What reads captions, what is trained to follow them, and the scheduler that says what is asked of it."""

    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    scheduler: DDIMScheduler

    @torch.no_grad()
    def read(self, ids: Tensor) -> Tensor:
        """Embeddings (N, T, 64) of captions (N, T)."""
        embeddings: Tensor = self.text_encoder(ids)[0]
        return embeddings

    def loss(self, clean: Tensor, read: Tensor, noise: torch.Generator) -> Tensor:
        """Mean squared error of the predicted velocity for latents (N, 4, 8, 8) under read captions (N, T, 64)."""
        timesteps = spread_timesteps(len(clean), noise)
        added = torch.randn(clean.shape, generator=noise)
        noisy = self.scheduler.add_noise(clean, added, timesteps)
        predicted = self.unet(noisy, timesteps, read, return_dict=False)[0]
        return mse_loss(predicted, self.scheduler.get_velocity(clean, added, timesteps))


def train_denoiser(vae: AutoencoderKL, tokenizer: CLIPTokenizer, seed: int, steps: int, copies: int) -> Denoiser:
    """Trained on latents of `vae`, of which the scale is set on the way; the same seed and steps give the same one."""
    latents = cache_latents(vae, copies, np.random.default_rng([seed, 2]))
    noise = torch.Generator().manual_seed(seed + 2)
    torch.manual_seed(seed + 2)
    parts = Denoiser(build_text_encoder(tokenizer), build_unet(), build_scheduler())
    read = parts.read(caption_ids(tokenizer))

    def loss_at(_: int) -> Tensor:
        chosen = torch.randint(len(latents.values), (BATCH,), generator=noise)
        wordings = pick_captions(latents.captions[chosen], len(read), noise)
        return parts.loss(latents.values[chosen], read[wordings], noise)

    fit(list(parts.unet.parameters()), loss_at, Plan(steps, PEAK_RATE, AVERAGE), "denoiser")
    return parts
