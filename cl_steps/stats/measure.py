"""Measures models on held-out images and prompts, all on the same noise and seeds.

The models are adapters on one base. What is measured goes into `Measured` and becomes `Figures` after each look.

Shapes: n images or samples, k timesteps an image, d features; latents (n, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cl_steps.config import Evaluate, Serving
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

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""

    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Latents."""

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
    """A slice's evaluation set, encoded: its images' latents and features, and its captions' features by caption."""

    group: SliceSet
    latents: Tensor
    features: Floats
    captions: Mapping[str, Floats]

    @classmethod
    def of(cls, group: SliceSet, images: Sequence[Image.Image], model: Model, reader: Reader) -> HeldOut:
        """From the slice's images, in the order of its rows."""
        texts = reader.text_features(group.prompts).astype(np.float64) if reader.reads_text else np.empty((0, 0))
        features = reader.image_features(images).astype(np.float64)
        return cls(group, model.encode_images(images), features, dict(zip(group.prompts, texts, strict=False)))

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
    plans = [noise_plan(bench, sha256, held.latents.shape[1:]) for sha256 in held.units]
    losses = bench.model.errors(
        held.latents.repeat_interleave(count, dim=0),
        torch.cat([noise for noise, _ in plans]),
        torch.cat([timesteps for _, timesteps in plans]),
        [row["text"] for row in held.group.rows for _ in range(count)],
        adapter,
        batch_size=bench.evaluate.batch_size,
    )
    return dict(zip(held.units, losses.double().reshape(-1, count).mean(dim=1).tolist(), strict=True))


def noise_plan(bench: Bench, sha256: str, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Noise (k, ...) and timesteps (k,) from k equal parts of the schedule; fixed by plan and image."""
    count = bench.evaluate.loss_draws
    generator = torch.Generator().manual_seed(derived_seed(bench.plan, "loss", sha256))
    place = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return torch.randn((count, *shape), generator=generator), bench.model.schedule.at(place)


def measure_samples(bench: Bench, measured: Measured, key: tuple[str, str], adapter: str, look: int) -> None:
    """Draw what this look asks of (model, slice) and is not there yet."""
    known, shown = measured.samples.setdefault(key, {}), measured.pictures.setdefault(key, {})
    wanted = [draw for draw in draws(bench.held_out[key[1]].group, bench.plan, look) if draw not in known]
    if not wanted:
        return
    prompts, seeds = [draw.prompt for draw in wanted], [draw.seed for draw in wanted]
    pictures = bench.model.sample(prompts, seeds, bench.serving, adapter, batch_size=bench.evaluate.batch_size)
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
