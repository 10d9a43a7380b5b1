"""Watches what the student forgets: denoising loss on probe images of old slices, at fixed timesteps and noise.

Student and teacher see the same (image, t, noise), so differences are paired and the unit is the image. The rise of a
slice is mean(student - teacher) / mean(teacher). It is beyond the budget when even its lower 95 % bound is, so that few
probes do not cry wolf; the gate decides with more data, the guard only keeps a run from ending badly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from cl_steps.documents import Json
from cl_steps.learning.learner import STUDENT, Learner, Pool
from cl_steps.learning.plan import generator, stratified
from cl_steps.models.model import Denoiser

DRAWS = 4
MAX_PER_SLICE = 32
ROWS_AT_ONCE = 32
Z_95 = 1.645


@dataclass(frozen=True)
class Bank:
    """Probe images with `DRAWS` fixed timesteps and noises each: N images, N * DRAWS rows, an image's rows adjacent.

    `u` are the timesteps' quantiles, as in a `Plan`.
    """

    pool: Pool
    u: Tensor
    noise: Tensor

    @classmethod
    def of(cls, pool: Pool, seed: int) -> Bank:
        """The first `MAX_PER_SLICE` images of each slice; each image's timesteps are spread over the whole range."""
        kept = [place for place, name in enumerate(pool.slices) if pool.slices[:place].count(name) < MAX_PER_SLICE]
        rows = torch.tensor(kept, dtype=torch.int64)
        random = generator(seed, "probe")
        u = [stratified(DRAWS, random) for _ in kept]
        small = Pool(
            pool.latents[rows] if kept else pool.latents,
            tuple(pool.texts[place] for place in kept),
            tuple(pool.slices[place] for place in kept),
        )
        noise = torch.randn((len(kept) * DRAWS, *pool.latents.shape[1:]), generator=random)
        return cls(small, torch.cat(u) if u else torch.empty(0, dtype=torch.float64), noise)

    def measure(self, denoiser: Denoiser, adapter: str, at_once: int = ROWS_AT_ONCE) -> Tensor:
        """Each image's mean denoising loss (N,), float64, computed for `at_once` rows at a time."""
        if not len(self.pool):
            return torch.empty(0, dtype=torch.float64)
        latents = self.pool.latents.repeat_interleave(DRAWS, dim=0)
        texts = [text for text in self.pool.texts for _ in range(DRAWS)]
        errors = denoiser.errors(latents, self.noise, denoiser.schedule.at(self.u), texts, adapter, at_once)
        return errors.double().view(-1, DRAWS).mean(dim=1)


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
    """Compares the moving average with the teacher at each look and remembers the last one within the budget."""

    old: Bank
    new: Bank
    teacher_old: Tensor
    teacher_new: Tensor
    budget: float
    kept: Tensor
    kept_step: int = 0
    readings: list[Reading] = field(default_factory=list)

    @classmethod
    def before(cls, learner: Learner, old: Bank, new: Bank) -> Guard:
        """Measured before the first step, when the student still is the teacher."""
        assert learner.step == 0
        taught_old, taught_new = (_measured(bank, learner) for bank in (old, new))
        return cls(old, new, taught_old, taught_new, learner.update.probe_budget, learner.average.clone())

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
        losses = [_measured(bank, learner) for bank in (self.old, self.new)]
        return {
            "old": compare(self.old.pool.slices, losses[0], self.teacher_old),
            "new": compare(self.new.pool.slices, losses[1], self.teacher_new),
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
