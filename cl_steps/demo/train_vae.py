"""Trains the autoencoder of the demonstration's base on every style and on any ink on any paper.

It is the one part of the base that meets tomorrow's colours: the latents have to be able to hold them, as those of a
large autoencoder can. It sees `TRAIN` strokes only.
"""

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.functional import avg_pool2d

from cl_steps.demo.drawing import STYLES, TRAIN, Colours, Floats, colours_of, paint, random_colours, strokes_of
from cl_steps.demo.networks import build_vae
from cl_steps.demo.optimise import Plan, fit

BATCH = 16
KL_WEIGHT = 3e-6


def to_pixels(pictures: Floats) -> Tensor:
    """(N, 32, 32, 3) in 0..1 to (N, 3, 32, 32) in -1..1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous() * 2 - 1


def join(first: Colours, second: Colours) -> Colours:
    """The colours of the pictures of both."""
    pairs = ((first.paper, second.paper), (first.ink, second.ink), (first.glow, second.glow))
    return Colours(*(np.concatenate(pair) for pair in pairs))


def mixed_pictures(strokes: Floats, rng: np.random.Generator) -> Tensor:
    """Pixels (N, 3, 32, 32) of N strokes: half in the known styles, half in random colours."""
    half = len(strokes) // 2
    styles = [str(style) for style in rng.choice(list(STYLES), half)]
    return to_pixels(paint(strokes, join(colours_of(styles, rng), random_colours(len(strokes) - half, rng))))


def colour_error(difference: Tensor) -> Tensor:
    """A mean squared error of (N, 3, H, W) in which hue and broad areas count for more than their few pixels would."""
    chroma = difference - difference.mean(dim=1, keepdim=True)
    broad = avg_pool2d(difference, 8)
    plain = difference.square().mean() + 0.1 * difference.abs().mean()
    return plain + 3 * chroma.square().mean() + 2 * broad.square().mean()


def train_vae(seed: int, steps: int) -> AutoencoderKL:
    """A trained autoencoder; the same seed and steps give the same one."""
    rng = np.random.default_rng([seed, 1])
    noise = torch.Generator().manual_seed(seed + 1)
    torch.manual_seed(seed)
    vae = build_vae()
    strokes = np.concatenate([strokes_of(TRAIN, rng) for _ in range(2)])

    def loss_at(_: int) -> Tensor:
        pixels = mixed_pictures(strokes[rng.integers(len(strokes), size=BATCH)], rng)
        posterior = vae.encode(pixels).latent_dist
        decoded: Tensor = vae.decode(posterior.sample(generator=noise)).sample
        divergence: Tensor = posterior.kl().mean()
        return colour_error(decoded - pixels) + KL_WEIGHT * divergence

    fit(list(vae.parameters()), loss_at, Plan(steps, 1.5e-3, average=0.99, weight_decay=1e-4), "autoencoder")
    return vae.eval()
