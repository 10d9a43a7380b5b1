"""The training loop's one place of mutable state: a student adapter, its moving average, the optimizer, the step.

Each step: a planned batch of new and replayed items, one forward pass of the student,

    loss = mean over the new + mean over the replayed + sum of weight * penalty,

AdamW without weight decay (decay would pull the adapter to the base, and so forget), warm-up and cosine, clipping, and
an exponential moving average, which is what is promoted.

A step may be divided: among processes that compute its shares at the same time, and in parts that one process computes
one after the other because its device's memory holds no more. Neither changes the result, beyond rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from cl_steps.config import Update
from cl_steps.errors import UsageError
from cl_steps.learning.methods.method import Forward, Penalty
from cl_steps.learning.plan import Plan, Planner
from cl_steps.learning.processes import ALONE, Processes
from cl_steps.learning.sharing import Part, parts_of, rows_at_once
from cl_steps.models.model import Denoiser
from cl_steps.progress import say

Result = TypeVar("Result")

STUDENT = "default"
BETAS = (0.9, 0.99)
TAIL_SHARE = 0.1
FLOAT16_SCALE = 1024.0  # keeps small gradients of half precision from vanishing; a step that overflows is skipped
MAX_SKIPPED = 100


@dataclass(frozen=True)
class Pool:
    """N encoded items: latents (N, C, h, w) on the CPU, captions and slices."""

    latents: Tensor
    texts: tuple[str, ...]
    slices: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Pools:
    """What a night learns from; `replay` may be empty."""

    new: Pool
    replay: Pool


class Learner:
    """Trains the adapter `default` of a denoiser; `step` counts the steps that are done.

    `parts` is in how many parts this process computes its share of a step; out of memory, it doubles them itself.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        pools: Pools,
        update: Update,
        *,
        seed: int,
        penalties: tuple[Penalty, ...] = (),
        processes: Processes = ALONE,
        parts: int = 1,
    ) -> None:
        self.denoiser, self.update, self.penalties = denoiser, update, penalties
        self.processes, self.parts = processes, parts
        self.new, self.replay = pools.new, pools.replay
        self.planner = Planner(
            seed,
            len(self.new),
            len(self.replay),
            update.batch_size,
            tuple(self.new.latents.shape[1:]),
            denoiser.num_timesteps,
            update.caption_dropout,
        )
        self.parameters = denoiser.adapters.train(STUDENT)
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters, update.learning_rate, betas=BETAS, weight_decay=0.0, fused=True
        )
        self.step = 0
        self._scale = FLOAT16_SCALE if denoiser.dtype == torch.float16 else 1.0
        self._skipped = 0
        self._sums = torch.zeros(3 + len(penalties), dtype=torch.float64, device=denoiser.device)
        denoiser.encode_prompts(("", *self.new.texts, *self.replay.texts))

    def advance(self) -> None:
        """One step.

        Raises:
            UsageError: a gradient is not finite (with float16, which skips such steps, more than 100 were not), or the
                memory does not even hold one item.
        """
        plan = self.planner.plan(self.step)
        own = self.within_memory(lambda: self._gradients(plan))
        terms = self.processes.sum(own, self.parameters)
        self._apply()
        if self.step >= math.floor(self.update.steps * (1 - TAIL_SHARE)):
            self._sums[1:] += terms
            self._sums[0] += 1
        self.step += 1

    def within_memory(self, work: Callable[[], Result]) -> Result:
        """What `work` returns; where the device runs out of memory it is called again with twice as many parts.

        Raises:
            UsageError: a part is a single item already.
        """
        while True:
            try:
                return work()
            except torch.OutOfMemoryError:
                pass  # nothing is freed before the exception is gone, with the frames that it holds
            self._divide()

    @property
    def rows_at_once(self) -> int:
        """How many rows a part has at most: what the memory is known to hold."""
        return rows_at_once(self.update.batch_size, self.processes.size, self.parts)

    def terms(self, plan: Plan) -> Tensor:
        """(2 + penalties,): the denoising losses over the new and over the replayed items, and each penalty."""
        forward, errors = self._forward(plan)
        nothing = errors.new_zeros(())
        fresh, replayed = errors[: forward.num_new], errors[forward.num_new :]
        means = [rows.mean() if len(rows) else nothing for rows in (fresh, replayed)]
        return torch.stack([*means, *(penalty(self.denoiser, forward) for penalty in self.penalties)])

    def tail_means(self) -> dict[str, float]:
        """The terms of the loss by name, each as its mean over the last tenth of the steps."""
        count, *sums = self._sums.tolist()
        names = ("new", "replay", *(penalty.name for penalty in self.penalties))
        return {name: value / max(count, 1.0) for name, value in zip(names, sums, strict=True)}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the student computes with its moving average."""
        own = [parameter.detach().clone() for parameter in self.parameters]
        self.put(self.average)
        try:
            yield
        finally:
            self.put(own)

    def put(self, weights: list[Tensor]) -> None:
        """Give the student these weights."""
        self.denoiser.adapters.put(STUDENT, weights)

    def state(self) -> dict[str, Tensor]:
        """All that a later process needs to go on as if nothing had happened; the step itself is kept beside it."""
        tensors = {"sums": self._sums, "skipped": torch.tensor(self._skipped)}
        for number, (parameter, average) in enumerate(zip(self.parameters, self.average, strict=True)):
            tensors |= {f"student.{number}": parameter.detach(), f"average.{number}": average}
            own = self.optimizer.state.get(parameter, {})
            tensors |= {f"optimizer.{number}.{key}": value for key, value in own.items()}
        return {key: value.detach().cpu().clone() for key, value in tensors.items()}

    def restore(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave after `step` steps."""
        self.step = step
        self._sums.copy_(tensors["sums"])
        self._skipped = int(tensors["skipped"])
        self.put([tensors[f"student.{number}"] for number in range(len(self.parameters))])
        for number, (parameter, average) in enumerate(zip(self.parameters, self.average, strict=True)):
            average.copy_(tensors[f"average.{number}"])
            prefix = f"optimizer.{number}."
            own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            self.optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in own.items()}

    def _gradients(self, plan: Plan) -> Tensor:
        """Leave the gradients of this process' share of the loss; returns its share of each term."""
        self.optimizer.zero_grad(set_to_none=True)
        weights = [1.0, float(len(self.replay) > 0), *(penalty.weight for penalty in self.penalties)]
        total = torch.zeros(len(weights), device=self.denoiser.device)
        for part in parts_of(plan, self.processes.rank, self.processes.size, self.parts):
            terms = self.terms(part.plan) * self._shares(part)
            torch.autograd.backward((terms * terms.new_tensor(weights)).sum() * self._scale)
            total += terms.detach()
        return total

    def _shares(self, part: Part) -> Tensor:
        """What a part counts of each term."""
        of_penalty = {"replayed": part.replayed, "step": part.rows}
        shares = [part.new, part.replayed, *(of_penalty[penalty.over] for penalty in self.penalties)]
        return torch.tensor(shares, device=self.denoiser.device)

    def _divide(self) -> None:
        if self.rows_at_once == 1:
            raise UsageError(
                "the device's memory does not hold the training of one image: set compute.precision to bfloat16, "
                "lower update.lora.rank where the line begins, or give the step a device with more memory"
            )
        self.parts *= 2
        say(f"update: out of memory, from step {self.step} on each step is computed in {self.parts} parts")
        self.optimizer.zero_grad(set_to_none=True)
        if self.denoiser.device.type == "cuda":
            torch.cuda.empty_cache()

    def _forward(self, plan: Plan) -> tuple[Forward, Tensor]:
        """The student's one pass over new and replayed items, and its errors (N,)."""
        device = self.denoiser.device
        x0 = self.new.latents[plan.new]
        if len(plan.replay):
            x0 = torch.cat([x0, self.replay.latents[plan.replay]])
        texts = [self.new.texts[place] for place in plan.new.tolist()]
        texts += [self.replay.texts[place] for place in plan.replay.tolist()]
        kept = ["" if dropped else text for text, dropped in zip(texts, plan.dropped.tolist(), strict=True)]
        x0, noise, t = x0.to(device), plan.noise.to(device), plan.t.to(device)
        x_t, embeddings = self.denoiser.add_noise(x0, noise, t), self.denoiser.encode_prompts(kept)
        output = self.denoiser.predict(x_t, t, embeddings, STUDENT)
        errors = (output - self.denoiser.target(x0, noise, t)).square().mean(dim=(1, 2, 3))
        return Forward(x_t, t, embeddings, output, len(plan.new)), errors

    def _apply(self) -> None:
        """Clip, step and average, unless the gradient is not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.update)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if self._scale != 1:
            torch._foreach_div_(gradients, self._scale)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.update.clip_norm)
        if bool(norm.isfinite()):
            self.optimizer.step()
            self._follow(average_decay(self.step, self.update.ema_decay))
        else:
            self._skipped += 1
        if self._skipped > (MAX_SKIPPED if self._scale != 1 else 0):
            raise UsageError("training does not converge (a gradient is not finite): lower update.learning_rate")
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        """average = decay * average + (1 - decay) * student."""
        torch._foreach_lerp_(self.average, list[Tensor](self.parameters), 1 - decay)


def learning_rate(step: int, update: Update) -> float:
    """Linear warm-up to `update.learning_rate`, then half a cosine down towards 0; `step` counts from 0."""
    warmup = max(1, round(update.steps * update.warmup_share))
    if step < warmup:
        return update.learning_rate * (step + 1) / warmup
    return update.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, update.steps - warmup)))


def average_decay(step: int, limit: float) -> float:
    """The decay after the step's update: short memory at first, so that the start does not linger, then `limit`."""
    return min(limit, (1 + step) / (10 + step))
