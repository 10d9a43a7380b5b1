"""Trains the demonstration's feature extractor: a small CLIP that stands in for a general-purpose one.

Pictures of `TRAIN` strokes in all five styles and in random colours are matched with their captions (InfoNCE, arXiv
1807.03748, from picture to text), against one wording of every caption there is; noise is taught to match none.
Matching alone stays at colours for a long time, as neither side has a reason to tell digits apart before the other
does: a linear head on the vision side, thrown away afterwards, names the digit and ends that.
Captions are counted style by style, 10 digits each; the last 10 name no style.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPModel, CLIPTokenizer

from cl_steps.demo.drawing import (
    PLAIN_TEMPLATES,
    SIDE,
    STYLES,
    TEMPLATES,
    TRAIN,
    Floats,
    Integers,
    caption,
    colours_of,
    digits_of,
    paint,
    plain_caption,
    random_colours,
    strokes_of,
)
from cl_steps.demo.networks import build_clip
from cl_steps.demo.optimise import Plan, fit
from cl_steps.demo.train_vae import join, to_pixels

NUM_STYLED, NUM_RANDOM, NUM_JUNK = 40, 16, 8
NUM_STYLES = len(STYLES)
JUNK_WEIGHT = 1.0
HEAD_WEIGHT = 0.5
MAX_SCALE = 30.0
PEAK_RATE = 1.5e-3
MASKED = -1e4


@dataclass(frozen=True)
class Strokes:
    """`values` (N, 32, 32) in 0..1 and `digits` (N,)."""

    values: Floats
    digits: Integers


def gather_strokes(copies: int, rng: np.random.Generator) -> Strokes:
    """`copies` wobbled copies of every `TRAIN` stroke."""
    values = np.concatenate([strokes_of(TRAIN, rng) for _ in range(copies)])
    return Strokes(values, np.tile(digits_of(TRAIN), copies))


def one_wording_each(rng: np.random.Generator) -> list[str]:
    """60 captions: every digit in every style, then every digit without a style, each in a wording drawn anew."""
    styled = [caption(d, style, int(rng.integers(len(TEMPLATES)))) for style in STYLES for d in range(10)]
    return styled + [plain_caption(d, int(rng.integers(len(PLAIN_TEMPLATES)))) for d in range(10)]


def junk_pictures(count: int, rng: np.random.Generator) -> Floats:
    """(count, 32, 32, 3) of what no caption describes: noise of several grains, and flat colour."""
    pictures = np.empty((count, SIDE, SIDE, 3), np.float32)
    for place in range(count):
        grain = int(rng.choice([1, 1, 2, 4, 32]))
        coarse = rng.random((SIDE // grain, SIDE // grain, 3)) * rng.uniform(0.5, 1) + rng.uniform(-0.1, 0.3)
        pictures[place] = coarse.repeat(grain, 0).repeat(grain, 1).clip(0, 1)
    return pictures


def captioned_pictures(strokes: Strokes, rng: np.random.Generator) -> tuple[Floats, Integers]:
    """Pictures (N, 32, 32, 3), in known styles and then in random colours, and the row (N,) of each one's caption."""
    chosen = rng.integers(len(strokes.values), size=NUM_STYLED + NUM_RANDOM)
    style_places = rng.integers(NUM_STYLES, size=NUM_STYLED)
    names = list(STYLES)
    colours = join(colours_of([names[place] for place in style_places], rng), random_colours(NUM_RANDOM, rng))
    pictures = paint(strokes.values[chosen], colours)
    places = np.concatenate([style_places, np.full(NUM_RANDOM, NUM_STYLES)])
    grain = rng.normal(0, 1, pictures.shape) * rng.uniform(0, 0.03, (len(pictures), 1, 1, 1))
    return (pictures + grain).clip(0, 1).astype(np.float32), places * 10 + strokes.digits[chosen]


def pooled(model: CLIPModel, pixels: Tensor) -> Tensor:
    """What the vision transformer makes of pixels (N, 3, 32, 32) in -1..1, before the projection: (N, 96)."""
    output: Tensor = model.vision_model(pixel_values=pixels).pooler_output
    return output


def image_embeddings(model: CLIPModel, pixels: Tensor) -> Tensor:
    """Unit vectors (N, 64) of pixels (N, 3, 32, 32) in -1..1."""
    return normalize(model.visual_projection(pooled(model, pixels)), dim=-1)


def text_embeddings(model: CLIPModel, ids: Tensor) -> Tensor:
    """Unit vectors (N, 64) of token ids (N, 16)."""
    return normalize(model.text_projection(model.text_model(input_ids=ids).pooler_output), dim=-1)


def matching_loss(cosines: Tensor, rows: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE of (N, 60) cosines; a styled picture's own digit without a style is not held against it."""
    plain_rows = NUM_STYLES * 10 + rows % 10
    also_true = torch.zeros_like(cosines, dtype=torch.bool).scatter_(1, plain_rows[:, None], True)
    also_true &= rows[:, None] < NUM_STYLES * 10
    return cross_entropy((cosines * scale).masked_fill(also_true, MASKED), rows)


def contrastive_loss(model: CLIPModel, images: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
    """The loss of unit vectors of N captioned pictures followed by junk, (N + J, 64), against captions (60, 16)."""
    cosines = images @ text_embeddings(model, ids).T
    scale = model.logit_scale.exp().clamp(max=MAX_SCALE)
    junk = cosines[len(rows) :].clamp(min=0).square().amax(dim=1).mean()
    return matching_loss(cosines[: len(rows)], rows, scale) + JUNK_WEIGHT * junk


def fit_extractor(tokenizer: CLIPTokenizer, seed: int, steps: int, copies: int) -> CLIPModel:
    """A trained `CLIPModel`; the same seed and steps give the same one."""
    rng = np.random.default_rng([seed, 3])
    torch.manual_seed(seed + 3)
    model = build_clip(tokenizer)
    head = nn.Linear(model.config.vision_config.hidden_size, 10)
    strokes = gather_strokes(copies, rng)

    def loss_at(_: int) -> Tensor:
        pictures, rows = captioned_pictures(strokes, rng)
        seen = pooled(model, to_pixels(np.concatenate([pictures, junk_pictures(NUM_JUNK, rng)])))
        ids = tokenizer(one_wording_each(rng), padding="max_length", return_tensors="pt").input_ids
        targets = torch.from_numpy(rows)
        named = cross_entropy(head(seen[: len(targets)]), targets % 10)
        images = normalize(model.visual_projection(seen), dim=-1)
        return contrastive_loss(model, images, targets, ids) + HEAD_WEIGHT * named

    parameters = [*model.parameters(), *head.parameters()]
    fit(parameters, loss_at, Plan(steps, PEAK_RATE, average=0.995, weight_decay=0.02), "feature extractor")
    return model.eval()
