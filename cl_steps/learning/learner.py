"""The training loop's one place of mutable state: a student adapter, its moving average, the optimizer, the step.

Each step: a planned batch of new and replayed items, one forward pass of the student,

    loss = mean over the new + w * mean over the replayed + sum of weight * penalty,

w is 1 unless `update.methods.replay.weight` says otherwise; AdamW without weight decay (decay would pull the adapter to
the base, and so forget), warm-up and cosine, clipping, and an exponential moving average, which is what is promoted.

A step may be divided: among processes that compute its shares at the same time, and in parts that one process computes
one after the other because its device's memory holds no more. Neither changes the result, beyond rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import Tensor

from cl_steps.config import Update
from cl_steps.errors import UsageError
from cl_steps.learning.methods.catalogue import NONE, Kept, Methods
from cl_steps.learning.methods.method import STUDENT, Forward
from cl_steps.learning.plan import WHOLE, Plan, Planner, Stage, generator, stratified
from cl_steps.learning.pools import Pool, Pools
from cl_steps.learning.processes import ALONE, Processes
from cl_steps.learning.sharing import Part, parts_of, rows_at_once
from cl_steps.learning.stages import mask_of, nearest_first
from cl_steps.models.model import Denoiser
from cl_steps.progress import say

Result = TypeVar("Result")

BETAS = (0.9, 0.99)
TAIL_SHARE = 0.1
FLOAT16_SCALE = 1024.0  # keeps small gradients of half precision from vanishing; a step that overflows is skipped
MAX_SKIPPED = 100
CLIP_EPSILON = 1e-6


class Learner:
    """Trains the adapter `default` of a denoiser; `step` counts the steps that are done.

    `parts` is in how many parts this process computes its share of a step; out of memory, it doubles them itself.
    With `in_step` the processes hold a share of the base's weights each, so that all call the networks equally often.

    Raises:
        UsageError: in step, and a step does not divide evenly.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        pools: Pools,
        update: Update,
        *,
        seed: int,
        methods: Methods = NONE,
        kept: Kept = MappingProxyType({}),
        processes: Processes = ALONE,
        parts: int = 1,
        in_step: bool = False,
    ) -> None:
        self.denoiser, self.update, self.pools, self.seed = denoiser, update, pools, seed
        self.processes, self.parts, self.in_step = processes, parts, in_step
        if in_step and not methods.are_even:
            raise UsageError("compute.shard goes with replay, distillation and lwf only: leave out the other methods")
        self.new, self.replay = pools.new, pools.replay
        denoiser.keep_prompts(("", *self.new.texts, *self.replay.texts, *pools.memory.texts))
        self.student = denoiser.adapters.train(STUDENT)
        self.average = self.student.detach().clone()
        self.optimizer = torch.optim.AdamW(
            [self.student], update.learning_rate, betas=BETAS, weight_decay=0.0, fused=True
        )
        self.step = 0
        self._scale = FLOAT16_SCALE if denoiser.dtype == torch.float16 else 1.0
        self._constants: dict[tuple[float, ...], Tensor] = {}
        self.kept = methods.begin(self, kept)
        made = methods.make(self, self.kept)
        self.penalties, self.rules = made.terms, made.rules
        self._replayed = made.replayed if len(self.replay) else 0.0
        self.planner = self._planner(made.stages or WHOLE)
        self._masks = [mask_of(denoiser.adapters, stage.layers) for stage in self.planner.stages]
        self._skipped = torch.zeros((), dtype=torch.int64, device=denoiser.device)
        self._sums = torch.zeros(3 + len(made.terms), dtype=torch.float64, device=denoiser.device)
        if in_step:
            self.keep_step(())

    def advance(self) -> None:
        """One step; nothing in it waits for the device.

        A step whose gradient is not finite changes nothing but a count on the device, which is looked at only where
        the guard looks next, at the end, and before a checkpoint (`state`).

        Raises:
            UsageError: a gradient was not finite since the count was last looked at (with float16, where a step may
                overflow, more than 100 were not in all), or the memory does not even hold one item.
        """
        plan = self.planner.plan(self.step)
        own = self.within_memory(lambda: self._gradients(plan))
        terms = self.processes.sum(own, [self.student])
        self._follow_rules()
        self._apply()
        if self.step >= math.floor(self.update.steps * (1 - TAIL_SHARE)):
            self._sums[1:] += terms
            self._sums[0] += 1
        self.step += 1
        if self.step % self.update.checkpoint_every == 0 or self.step == self.update.steps:
            self._check_finite()

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
        """(2 + penalties,): the denoising losses over the new and over the replayed items, and each penalty.

        All rows of the plan have one size.
        """
        forward, errors = self._forward(plan, self.new)
        nothing = errors.new_zeros(())
        fresh, replayed = errors[: forward.num_new], errors[forward.num_new :]
        means = [rows.mean() if len(rows) else nothing for rows in (fresh, replayed)]
        return torch.stack([*means, *(penalty(self._at(plan), forward) for penalty in self.penalties)])

    def tail_means(self) -> dict[str, float]:
        """The terms of the loss by name, each as its mean over the last tenth of the steps."""
        count, *sums = self._sums.tolist()
        names = ("new", "replay", *(penalty.name for penalty in self.penalties))
        return {name: value / max(count, 1.0) for name, value in zip(names, sums, strict=True)}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the student computes with its moving average."""
        own = self.student.detach().clone()
        self.put(self.average)
        try:
            yield
        finally:
            self.put(own)

    def put(self, weights: Tensor) -> None:
        """Give the student these weights."""
        self.denoiser.adapters.put(STUDENT, weights)

    def state(self) -> dict[str, Tensor]:
        """All that a later process needs to go on as if nothing had happened; the step itself is kept beside it.

        Raises:
            UsageError: as `advance`, so that what does not converge is not kept.
        """
        self._check_finite()
        tensors = {"sums": self._sums, "skipped": self._skipped, "student": self.student, "average": self.average}
        tensors |= {f"optimizer.{key}": value for key, value in self.optimizer.state.get(self.student, {}).items()}
        tensors |= {f"rule.{number}.{key}": value for number, key, value in self._counted()}
        return {key: value.detach().cpu().clone() for key, value in tensors.items()}

    def restore(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave after `step` steps."""
        self.step = step
        self.put(tensors["student"])
        for own, name in ((self._sums, "sums"), (self._skipped, "skipped"), (self.average, "average")):
            own.copy_(tensors[name])
        for number, key, value in self._counted():
            value.copy_(tensors[f"rule.{number}.{key}"])
        own_state = {key: value for key, value in tensors.items() if key.startswith("optimizer.")}
        self.optimizer.state[self.student] = {
            key.removeprefix("optimizer."): value.to(self.student.device) for key, value in own_state.items()
        }

    def plan_of(self, pool: Pool, places: Tensor, *what: object) -> Plan:
        """A step over these items of a pool alone, with timesteps and noise fixed by the seed and `what`."""
        random, sizes = generator(self.seed, *what), tuple(pool.sizes[place] for place in places.tolist())
        noise = tuple(torch.randn(self.denoiser.at(size).latent_shape, generator=random) for size in sizes)
        dropped = torch.zeros(len(places), dtype=torch.bool)
        return Plan(places, places[:0], stratified(len(places), random), noise, dropped, sizes)

    def gradient_of(self, pool: Pool, plan: Plan) -> Tensor:
        """The gradient (P,) of the denoising loss over such a step, all processes together; the student's own stays."""
        own = self.student.grad
        try:
            self.within_memory(lambda: self._denoising_gradients(pool, plan))
            self.processes.sum(self.student.new_zeros(0), [self.student])
            assert self.student.grad is not None
            return self.student.grad / self._scale
        finally:
            self.student.grad = own

    def _denoising_gradients(self, pool: Pool, plan: Plan) -> None:
        self.student.grad = None
        for part in parts_of(plan, self.processes.rank, self.processes.size, self.parts):
            with self.denoiser.adapters.active(STUDENT):
                _, errors = self._forward(part.plan, pool)
                torch.autograd.backward(errors.mean() * part.new * self._scale)

    def _planner(self, stages: tuple[Stage, ...]) -> Planner:
        sizes = {*self.new.sizes, *self.replay.sizes}
        return Planner(
            self.seed,
            self.new.sizes,
            self.replay.sizes,
            self.update.batch_size,
            {size: self.denoiser.at(size).latent_shape for size in sizes},
            self.update.caption_dropout,
            self.update.steps,
            stages,
            nearest_first(self, self.rows_at_once) if any(stage.nearest < 1 for stage in stages) else (),
        )

    def _gradients(self, plan: Plan) -> Tensor:
        """Leave the gradients of this process' share of the loss; returns its share of each term."""
        self.optimizer.zero_grad(set_to_none=True)
        weights = (1.0, self._replayed, *(penalty.weight for penalty in self.penalties))
        total = torch.zeros(len(weights), device=self.denoiser.device)
        for part in parts_of(plan, self.processes.rank, self.processes.size, self.parts):
            with self.denoiser.adapters.active(STUDENT):
                terms = self.terms(part.plan) * self._constant(self._shares(part))
                torch.autograd.backward((terms * self._constant(weights)).sum() * self._scale)
            total += terms.detach()
        return total

    def _shares(self, part: Part) -> tuple[float, ...]:
        """What a part counts of each term."""
        over = {"new": part.new, "replayed": part.replayed, "all": part.rows, "weights": part.rows}
        return (part.new, part.replayed, *(over[penalty.over] for penalty in self.penalties))

    def _constant(self, values: tuple[float, ...]) -> Tensor:
        """These few numbers on the device, brought there once: they are the same at each step."""
        if values not in self._constants:
            self._constants[values] = torch.tensor(values, device=self.denoiser.device)
        return self._constants[values]

    def _brought(self, tensor: Tensor) -> Tensor:
        """A tensor of the CPU on the device, without waiting for it."""
        device = self.denoiser.device
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)

    def keep_step(self, texts: Collection[str]) -> None:
        """Have all processes call the networks equally often, for the captions of the pools and these."""
        kinds = 2 if len(self.replay) else 1
        if self.update.batch_size % (kinds * self.processes.size * self.parts):
            raise UsageError(
                "compute.shard needs a step that divides evenly: set update.batch_size to a multiple of "
                f"{kinds * self.processes.size * self.parts} ({self.processes.size} processes, {self.parts} parts each)"
            )
        known = {"", *self.new.texts, *self.replay.texts, *texts}
        self.denoiser.keep_step([self.rows_at_once, self.rows_at_once // kinds], sorted(known))

    def _divide(self) -> None:
        if self.in_step:
            # The others are waiting within the step that does not fit here.
            raise UsageError(
                "the device's memory does not hold this process' part of a step: set compute.checkpointing to true, or "
                "raise RETAIN_MICRO_BATCHES or the number of processes"
            )
        if self.rows_at_once == 1:
            raise UsageError(
                "the device's memory does not hold the training of one image: set compute.precision to bfloat16, "
                "compute.checkpointing or compute.offload to true, or compute.base to int8 or nf4, or give the step a "
                "device with more memory"
            )
        self.parts *= 2
        say(f"update: out of memory, from step {self.step} on each step is computed in {self.parts} parts")
        self.optimizer.zero_grad(set_to_none=True)
        if self.denoiser.device.type == "cuda":
            torch.cuda.empty_cache()

    def _at(self, plan: Plan) -> Denoiser:
        """The denoiser for the one size that the rows of a plan have."""
        [size] = set(plan.sizes)
        return self.denoiser.at(size)

    def _forward(self, plan: Plan, new: Pool) -> tuple[Forward, Tensor]:
        """The student's one pass over new items, from this pool, and replayed ones, and its errors (N,)."""
        denoiser = self._at(plan)
        rows = [(new, place) for place in plan.new.tolist()]
        rows += [(self.replay, place) for place in plan.replay.tolist()]
        texts = [
            "" if dropped else pool.texts[place]
            for (pool, place), dropped in zip(rows, plan.dropped.tolist(), strict=True)
        ]
        x0, noise = (torch.stack(own) for own in ([pool.latents[place] for pool, place in rows], plan.noise))
        x0, noise, t = self._brought(x0), self._brought(noise), self._brought(denoiser.schedule.at(plan.u))
        x_t, conditions = denoiser.schedule.add_noise(x0, noise, t), denoiser.encode_prompts(texts)
        output = denoiser.predict(x_t, t, conditions, STUDENT)
        errors = (output - denoiser.schedule.target(x0, noise, t)).square().flatten(1).mean(dim=1)
        return Forward(x_t, t, conditions, output, len(plan.new)), errors

    def _follow_rules(self) -> None:
        """Have the gradient changed by those that do."""
        gradient = self.student.grad
        assert gradient is not None
        if self.rules:
            gradient.div_(self._scale)
        for rule in self.rules:
            rule(self, gradient)
        if self.rules:
            gradient.mul_(self._scale)

    def _counted(self) -> Iterator[tuple[int, str, Tensor]]:
        """What the rules count."""
        for number, rule in enumerate(self.rules):
            yield from ((number, key, value) for key, value in rule.state.items())

    def _apply(self) -> None:
        """Clip, step and average; all three on the device, and none of them where the gradient is not finite.

        The fused AdamW takes the gradient divided by `grad_scale`, and does nothing where `found_inf` is 1.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.update)
        gradient = self.student.grad
        assert gradient is not None
        norm = torch.linalg.vector_norm(gradient) / self._scale
        is_broken = norm.isfinite().logical_not().float()
        excess = ((norm + CLIP_EPSILON) / self.update.clip_norm).clamp(min=1)
        self.optimizer.grad_scale, self.optimizer.found_inf = excess * self._scale, is_broken  # type: ignore[attr-defined]
        mask = self._masks[self.planner.stage_at(self.step)[0]]
        before = None if mask is None else self.student.detach().clone()
        self.optimizer.step()
        if mask is not None and before is not None:  # Adam moves a weight on that has no gradient any more
            self.put(torch.where(mask, self.student.detach(), before))
        self._skipped += is_broken.long()
        self._follow((1 - average_decay(self.step, self.update.ema_decay)) * (1 - is_broken))
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _follow(self, share: Tensor) -> None:
        """average = (1 - share) * average + share * student."""
        self.average.lerp_(self.student, share)

    def _check_finite(self) -> None:
        if int(self._skipped) > (MAX_SKIPPED if self._scale != 1 else 0):
            raise UsageError("training does not converge (a gradient is not finite): lower update.learning_rate")


def learning_rate(step: int, update: Update) -> float:
    """Linear warm-up to `update.learning_rate`, then half a cosine down towards 0; `step` counts from 0."""
    warmup = max(1, round(update.steps * update.warmup_share))
    if step < warmup:
        return update.learning_rate * (step + 1) / warmup
    return update.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, update.steps - warmup)))


def average_decay(step: int, limit: float) -> float:
    """The decay after the step's update: short memory at first, so that the start does not linger, then `limit`."""
    return min(limit, (1 + step) / (10 + step))
