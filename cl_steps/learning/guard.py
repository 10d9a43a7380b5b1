"""Watches what the student forgets: denoising loss on probe images of old slices, at fixed timesteps and noise.

Student and teacher see the same (image, t, noise), so differences are paired and the unit is the image. The rise of a
slice is mean(student - teacher) / mean(teacher). It is beyond the budget when even its lower 95 % bound is, so that few
probes do not cry wolf; the gate decides with more data, the guard only keeps a run from ending badly.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from cl_steps.config import Update
from cl_steps.data.images import by_size
from cl_steps.documents import Json
from cl_steps.learning.learner import Learner
from cl_steps.learning.methods.method import STUDENT
from cl_steps.learning.plan import generator, stratified
from cl_steps.learning.pools import Pool
from cl_steps.models.model import Denoiser

SHARE = 0.1
"""How much of the training's work the guard may cost at most, in rows: one that is learnt from costs three passes."""
LEARNT, DRAWS = 3, 4
MAX_PER_SLICE, MIN_PER_SLICE = 32, 8
BESIDE = 2
"""Looks beside those at checkpoints."""
ROWS_AT_ONCE = 32
Z_95 = 1.645


@dataclass(frozen=True)
class Looks:
    """How much the guard sees: `images` a slice with `draws` timesteps and noises each, at every `every`-th checkpoint.

    It also looks before the first step and after the last.
    """

    images: int = MAX_PER_SLICE
    draws: int = DRAWS
    every: int = 1

    @classmethod
    def within(cls, update: Update, slices: int) -> Looks:
        """What `SHARE` pays for with so many slices: it saves draws first, then images, then looks.

        However little that is, it sees eight images a slice, and looks once between the first step and the last.
        """
        checkpoints = math.ceil(update.steps / update.checkpoint_every)
        rows = SHARE * LEARNT * update.steps * update.batch_size / max(1, slices)
        each = rows / (checkpoints + BESIDE)
        images = int(min(MAX_PER_SLICE, max(MIN_PER_SLICE, each)))
        draws = int(min(DRAWS, max(1, each / images)))
        looks = max(1, int(rows / (images * draws)) - BESIDE)
        return cls(images, draws, math.ceil(checkpoints / looks))


@dataclass(frozen=True)
class Bank:
    """Probe images with fixed timesteps and noises: N images with k draws each.

    `u` (N, k) are the timesteps' quantiles, as in a `Plan`; `noise` of each image is (k, ...).
    """

    pool: Pool
    u: Tensor
    noise: tuple[Tensor, ...]

    @classmethod
    def of(cls, pool: Pool, seed: int, looks: Looks | None = None) -> Bank:
        """The first images of each slice; each image's timesteps are spread over the whole range."""
        looks = looks or Looks()
        kept: list[int] = []
        counts: Counter[str] = Counter()
        for place, name in enumerate(pool.slices):
            if counts[name] < looks.images:
                kept.append(place)
                counts[name] += 1
        random = generator(seed, "probe")
        u = [stratified(looks.draws, random) for _ in kept]
        latents = tuple(pool.latents[place] for place in kept)
        noise = tuple(torch.randn((looks.draws, *own.shape), generator=random) for own in latents)
        texts, slices = (tuple(rows[place] for place in kept) for rows in (pool.texts, pool.slices))
        small = Pool(latents, texts, slices, tuple(pool.sizes[place] for place in kept))
        return cls(small, torch.stack(u) if u else torch.empty((0, looks.draws), dtype=torch.float64), noise)

    def measure(self, denoiser: Denoiser, adapter: str, at_once: int = ROWS_AT_ONCE) -> Tensor:
        """Each image's mean denoising loss (N,), float64, computed for `at_once` rows at a time."""
        means, draws = torch.empty(len(self.pool), dtype=torch.float64), self.u.shape[1]
        for size, places in by_size(self.pool.sizes).items():
            own = denoiser.at(size)
            latents = torch.stack([self.pool.latents[place] for place in places]).repeat_interleave(draws, dim=0)
            noise = torch.cat([self.noise[place] for place in places])
            texts = [self.pool.texts[place] for place in places for _ in range(draws)]
            t = own.schedule.at(self.u[places].flatten())
            errors = own.errors(latents, noise, t, texts, adapter, at_once)
            means[places] = errors.double().view(-1, draws).mean(dim=1)
        return means


@dataclass(frozen=True)
class Reading:
    """One look after `step` steps: what `compare` says of each slice."""

    step: int
    slices: Mapping[str, Mapping[str, float]]

    def worst(self) -> tuple[str, float, float]:
        """The slice with the largest lower bound, with its rise and that bound; ("", 0, 0) without probes."""
        rows = [(name, row["rise"], row["rise_lower"]) for name, row in self.slices.items()]
        return max(rows, key=lambda row: row[2], default=("", 0.0, 0.0))


@dataclass
class Guard:
    """Compares the moving average with the teacher at each look and remembers the last one within the budget.

    It looks at every `every`-th checkpoint.
    """

    old: Bank
    new: Bank
    teacher_old: Tensor
    teacher_new: Tensor
    budget: float
    kept: Tensor
    every: int = 1
    kept_step: int = 0
    readings: list[Reading] = field(default_factory=list)

    @classmethod
    def before(cls, learner: Learner, old: Bank, new: Bank, every: int = 1) -> Guard:
        """Measured before the first step, when the student still is the teacher."""
        assert learner.step == 0
        taught_old, taught_new = (_measured(bank, learner) for bank in (old, new))
        return cls(old, new, taught_old, taught_new, learner.update.probe_budget, learner.average.clone(), every)

    def is_due(self, learner: Learner) -> bool:
        """Whether it looks at this checkpoint: at every `every`-th, and at the last."""
        update = learner.update
        return learner.step == update.steps or learner.step // update.checkpoint_every % self.every == 0

    def look(self, learner: Learner) -> None:
        """Measure the moving average; keep it where it is within the budget."""
        with learner.averaged():
            losses = _measured(self.old, learner)
        reading = Reading(learner.step, compare(self.old.pool.slices, losses, self.teacher_old))
        self.readings.append(reading)
        if reading.worst()[2] <= self.budget:
            self.kept, self.kept_step = learner.average.clone(), learner.step

    def settle(self, learner: Learner, may_back_off: bool) -> dict[str, Any]:
        """Put the weights to promote into the student: the last average, or the last one within the budget.

        Returns:
            the probe's figures for the report.
        """
        worst, rise, lower = self.readings[-1].worst() if self.readings else ("", 0.0, 0.0)
        beyond = lower > self.budget
        backs_off = beyond and may_back_off
        learner.put(self.kept if backs_off else learner.average)
        if self.readings and self.readings[-1].step == learner.step and not backs_off:
            old = self.readings[-1].slices
        else:
            old = compare(self.old.pool.slices, _measured(self.old, learner), self.teacher_old)
        return {
            "old": old,
            "new": compare(self.new.pool.slices, _measured(self.new, learner), self.teacher_new),
            "budget": self.budget,
            "last": {"worst_slice": worst, "rise": rise, "rise_lower": lower, "beyond_budget": beyond},
            "backed_off": backs_off,
            "kept_step": self.kept_step if backs_off else learner.step,
        }

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON facts for a checkpoint."""
        facts = {"kept_step": self.kept_step, "readings": [asdict(reading) for reading in self.readings]}
        return {"kept": self.kept.cpu()}, facts

    def restore(self, tensors: Mapping[str, Tensor], facts: Json) -> None:
        """Go on from what `state` gave."""
        self.kept = tensors["kept"].to(self.kept.device)
        self.kept_step = int(facts["kept_step"])
        self.readings = [Reading(**reading) for reading in facts["readings"]]


def _measured(bank: Bank, learner: Learner) -> Tensor:
    """The student's losses (N,); once memory is short, no more rows at a time than a part of a step has."""

    def measure() -> Tensor:
        at_once = ROWS_AT_ONCE if learner.parts == 1 else min(ROWS_AT_ONCE, learner.rows_at_once)
        return bank.measure(learner.denoiser, STUDENT, at_once)

    return learner.within_memory(measure)


def compare(slices: tuple[str, ...], student: Tensor, teacher: Tensor) -> dict[str, dict[str, float]]:
    """Per slice: images, mean losses (N,) of both, the relative rise, and its lower 95 % bound (normal, paired)."""
    figures = {}
    for name in sorted(set(slices)):
        rows = torch.tensor([own == name for own in slices])
        ours, theirs = student[rows], teacher[rows]
        rise = ours - theirs
        spread = float(rise.std()) / math.sqrt(len(rise)) if len(rise) > 1 else math.inf
        scale = max(float(theirs.mean()), 1e-12)
        lower = (float(rise.mean()) - Z_95 * spread) / scale if math.isfinite(spread) else 0.0
        figures[name] = {
            "images": len(rise),
            "teacher": float(theirs.mean()),
            "candidate": float(ours.mean()),
            "rise": float(rise.mean()) / scale,
            "rise_lower": lower,
        }
    return figures
