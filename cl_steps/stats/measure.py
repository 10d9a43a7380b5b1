"""Measures models on held-out images and prompts, all on the same noise and seeds.

The models are adapters on one base. What is measured goes into `Measured` and becomes `Figures` after each look.

Shapes: n images or samples, k timesteps an image, d features; latents (n, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cl_steps.config import Evaluate, Serving
from cl_steps.data.images import by_size
from cl_steps.stats import kid
from cl_steps.stats.decision import scaler
from cl_steps.stats.evaluation_set import Draw, SliceSet, derived_seed, draws, prompt_unit
from cl_steps.stats.fidelity import CaptionScale
from cl_steps.stats.figures import Figures, Floats, HeldOutFeatures, Key, Plan, Samples

Table = dict[str, dict[str, dict[str, float | None]]]

PICTURES_A_SLICE = 8
NO_TEXT = "the extractor reads no text"
BLIND = "the extractor cannot tell this slice's captions from others on its own held-out images"


class Times(Protocol):
    """A noise schedule; `models.schedule.Schedule` is one."""

    def at(self, u: Tensor) -> Tensor:
        """The timesteps (k,) below which shares u (k,) of all draws lie."""


class Model(Protocol):
    """A diffusion model with named adapters; `models.model.Denoiser` is one."""

    @property
    def schedule(self) -> Times:
        """Where timesteps come from."""

    def size_for(self, picture: tuple[int, int]) -> tuple[int, int]:
        """At which size (width, height) in pixels it works with a picture of this one."""

    def at(self, size: tuple[int, int]) -> Model:
        """The same model at that size."""

    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Latents of images that have its size."""

    def errors(
        self, x0: Tensor, noise: Tensor, t: Tensor, texts: Sequence[str], adapter: str | None, *, batch_size: int
    ) -> Tensor:
        """Denoising losses (n,)."""

    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], serving: Serving, adapter: str | None, batch_size: int
    ) -> list[Image.Image]:
        """One picture a prompt."""


class Reader(Protocol):
    """A feature extractor; `stats.features.Extractor` is one."""

    reads_text: bool

    def image_features(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Unit vectors (n, d)."""

    def text_features(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (n, d)."""


@dataclass(frozen=True)
class HeldOut:
    """A slice's evaluation set, encoded: its images' latents and features, and its captions' features by caption.

    `sizes` are those at which each image was encoded.
    """

    group: SliceSet
    latents: tuple[Tensor, ...]
    sizes: tuple[tuple[int, int], ...]
    features: Floats = field(default_factory=lambda: np.empty((0, 0)))
    captions: Mapping[str, Floats] = field(default_factory=dict)

    @classmethod
    def of(cls, group: SliceSet, images: Sequence[Image.Image], model: Model) -> HeldOut:
        """From the slice's images, in the order of its rows, each of a size of the model's; without features."""
        sizes = tuple(image.size for image in images)
        latents: dict[int, Tensor] = {}
        for size, places in by_size(sizes).items():
            encoded = model.at(size).encode_images([images[place] for place in places])
            latents |= dict(zip(places, encoded, strict=True))
        return cls(group, tuple(latents[place] for place in range(len(images))), sizes)

    def read(self, images: Sequence[Image.Image], reader: Reader) -> HeldOut:
        """With the features of these images, and of the captions where the reader reads text."""
        prompts = self.group.prompts
        texts = reader.text_features(prompts).astype(np.float64) if reader.reads_text else np.empty((0, 0))
        features = reader.image_features(images).astype(np.float64)
        return replace(self, features=features, captions=dict(zip(prompts, texts, strict=False)))

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """The size of the first picture with each caption."""
        return {row["text"]: (row["width"], row["height"]) for row in reversed(self.group.rows)}

    @property
    def units(self) -> tuple[str, ...]:
        """The SHA-256 of each image."""
        return tuple(row["sha256"] for row in self.group.rows)

    def real(self) -> HeldOutFeatures:
        """The images' features, as a decision needs them."""
        return HeldOutFeatures(self.units, tuple(prompt_unit(row["text"]) for row in self.group.rows), self.features)

    def caption_features(self) -> Floats:
        """Each image's caption (n, d)."""
        return np.array([self.captions[row["text"]] for row in self.group.rows])


@dataclass(frozen=True)
class Bench:
    """What measures: the model and the extractor, the evaluation set, the plan of seeds, and how much is asked."""

    model: Model
    reader: Reader
    held_out: Mapping[str, HeldOut]
    plan: str
    evaluate: Evaluate
    serving: Serving


@dataclass(frozen=True)
class Measured:
    """All that was measured so far: losses, the features of samples, and pictures of the first few of them."""

    losses: dict[Key, dict[str, float]] = field(default_factory=dict)
    samples: dict[tuple[str, str], dict[Draw, Floats]] = field(default_factory=dict)
    pictures: dict[tuple[str, str], dict[Draw, Image.Image]] = field(default_factory=dict)


def measure_losses(bench: Bench, slice_name: str, adapter: str) -> dict[str, float]:
    """Each held-out image's denoising loss: the mean over its own timesteps and noises."""
    held, count = bench.held_out[slice_name], bench.evaluate.loss_draws
    found: dict[str, float] = {}
    for size, places in by_size(held.sizes).items():
        latents = torch.stack([held.latents[place] for place in places])
        plans = [noise_plan(bench, held.units[place], latents.shape[1:]) for place in places]
        losses = bench.model.at(size).errors(
            latents.repeat_interleave(count, dim=0),
            torch.cat([noise for noise, _ in plans]),
            torch.cat([timesteps for _, timesteps in plans]),
            [held.group.rows[place]["text"] for place in places for _ in range(count)],
            adapter,
            batch_size=bench.evaluate.batch_size,
        )
        means = losses.double().reshape(-1, count).mean(dim=1).tolist()
        found |= {held.units[place]: mean for place, mean in zip(places, means, strict=True)}
    return {unit: found[unit] for unit in held.units}


def noise_plan(bench: Bench, sha256: str, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Noise (k, ...) and timesteps (k,) from k equal parts of the schedule; fixed by plan and image."""
    count = bench.evaluate.loss_draws
    generator = torch.Generator().manual_seed(derived_seed(bench.plan, "loss", sha256))
    place = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return torch.randn((count, *shape), generator=generator), bench.model.schedule.at(place)


def measure_samples(bench: Bench, measured: Measured, key: tuple[str, str], adapter: str, look: int) -> None:
    """Draw what this look asks of (model, slice) and is not there yet, each at the size for its caption's pictures."""
    known, shown = measured.samples.setdefault(key, {}), measured.pictures.setdefault(key, {})
    held = bench.held_out[key[1]]
    wanted = [draw for draw in draws(held.group, bench.plan, look) if draw not in known]
    if not wanted:
        return
    drawn: dict[int, Image.Image] = {}
    for size, places in by_size(bench.model.size_for(held.shapes[draw.prompt]) for draw in wanted).items():
        prompts, seeds = [wanted[place].prompt for place in places], [wanted[place].seed for place in places]
        model, at_once = bench.model.at(size), bench.evaluate.batch_size
        drawn |= zip(places, model.sample(prompts, seeds, bench.serving, adapter, batch_size=at_once), strict=True)
    pictures = [drawn[place] for place in range(len(wanted))]
    known.update(zip(wanted, bench.reader.image_features(pictures).astype(np.float64), strict=True))
    shown.update(list(zip(wanted, pictures, strict=True))[: PICTURES_A_SLICE - len(shown)])


def figures_of(bench: Bench, measured: Measured, plan: Callable[[Mapping[str, Mapping[str, str]]], Plan]) -> Figures:
    """What a decision rests on; `plan` is given what had to be left out."""
    items: dict[Key, dict[str, float]] = dict(measured.losses)
    left_out = _add_fidelity(bench, measured, items)
    samples = {key: _block(drawn) for key, drawn in measured.samples.items()}
    return Figures(plan(left_out), items, samples, {name: held.real() for name, held in bench.held_out.items()})


def summary(figures: Figures) -> Table:
    """Means by slice, metric and model; KID and diversity in the units of the decision."""
    table: Table = {}
    for model, name, metric in sorted(figures.items):
        _put(table, name, metric, model, figures.mean(model, name, metric))
    scale = scaler(figures) if figures.real else kid.Scaler(np.zeros(1), 1.0)
    for (model, name), block in sorted(figures.samples.items()):
        scaled, real = scale(block.features), figures.real[name]
        _put(table, name, "kid", model, kid.kid(scaled, scale(real.features), real.own(block.units)))
        _put(table, name, "diversity", model, kid.diversity(scaled))
    return table


def _put(table: Table, name: str, metric: str, model: str, value: float | None) -> None:
    known = value is not None and np.isfinite(value)
    table.setdefault(name, {}).setdefault(metric, {})[model] = float(f"{value:.6g}") if known else None


def _add_fidelity(bench: Bench, measured: Measured, items: dict[Key, dict[str, float]]) -> dict[str, dict[str, str]]:
    """Add fidelity and cosine to `items` where captions can be read; returns why they are left out elsewhere."""
    held_out = bench.held_out
    if not bench.reader.reads_text or not held_out:
        return {name: {"fidelity": NO_TEXT} for name in held_out}
    images = {name: held.features for name, held in held_out.items()}
    scale = CaptionScale.of(images, {name: held.caption_features() for name, held in held_out.items()})
    for (model, name), drawn in measured.samples.items():
        features = np.array(list(drawn.values()))
        texts = np.array([held_out[name].captions[draw.prompt] for draw in drawn])
        items[model, name, "cosine"] = _by_unit(drawn, (features * texts).sum(axis=1))
        if name in scale.scales:
            items[model, name, "fidelity"] = _by_unit(drawn, scale.fidelity(name, features, texts))
    return {name: {"fidelity": BLIND} for name in held_out if name not in scale.scales}


def _by_unit(drawn: Iterable[Draw], values: Floats) -> dict[str, float]:
    """The mean over each unit's draws."""
    groups: dict[str, list[float]] = {}
    for draw, value in zip(drawn, values, strict=True):
        groups.setdefault(draw.unit, []).append(float(value))
    return {unit: float(np.mean(group)) for unit, group in groups.items()}


def _block(drawn: Mapping[Draw, Floats]) -> Samples:
    """Features as (units, draws, d), units sorted."""
    units: dict[str, list[Floats]] = {}
    for draw in sorted(drawn, key=lambda draw: (draw.unit, draw.number)):
        units.setdefault(draw.unit, []).append(drawn[draw])
    return Samples(tuple(units), np.array(list(units.values())))
