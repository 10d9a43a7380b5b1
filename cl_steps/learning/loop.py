"""The training loop: steps, looks of the guard, checkpoints, and an orderly stop on SIGTERM.

Of several processes only the first has a guard and checkpoints; the others wait for it where they next meet. Where they
keep step each has a guard, which sees the same, and the first alone has checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from safetensors.torch import load

from cl_steps.documents import Json
from cl_steps.learning.guard import Guard
from cl_steps.learning.learner import Learner
from cl_steps.models.checkpoints import Checkpoints
from cl_steps.models.tensors import tensor_bytes
from cl_steps.progress import progress, say
from cl_steps.run.stopping import EXIT_TERMINATED, termination


@dataclass
class Keeper:
    """What one process alone does for all: it looks, saves, and knows what tries before this one took.

    `clock` gives the seconds of this try so far.
    """

    guard: Guard
    checkpoints: Checkpoints
    clock: Callable[[], float] = lambda: 0.0
    earlier_seconds: float = 0.0

    def save(self, learner: Learner) -> None:
        """Keep all that a later process needs to go on."""
        if not self.checkpoints.are_kept:
            return
        tensors, facts = self.guard.state()
        cost = {"micro_batches": learner.parts, "seconds": round(self.earlier_seconds + self.clock(), 1)}
        self.checkpoints.save(learner.step, learner.state() | tensors, {**facts, **cost})

    def resume(self, learner: Learner) -> Json | None:
        """Put guard and learner where the latest checkpoint is; returns what the learners beside it must know."""
        saved = self.checkpoints.load()
        if saved is None:
            return None
        learner.restore(saved.step, saved.tensors)
        self.guard.restore(saved.tensors, saved.facts)
        self.earlier_seconds = float(saved.facts.get("seconds", 0.0))
        say(f"update: goes on from step {saved.step} of {learner.update.steps}")
        return {"step": saved.step, "parts": int(saved.facts.get("micro_batches", 1)), "guard": self.guard.state()[1]}


def train(learner: Learner, keeper: Keeper | None, is_abandoned: Callable[[], bool] = lambda: False) -> None:
    """Run the steps that are left, from the latest checkpoint if there is one; `keeper` is the first process's.

    Where processes keep step each has one.

    Raises:
        SystemExit: with status 143 on SIGTERM (an evicted pod) of any of the processes, or where `is_abandoned` says
            that nobody waits for the result any more, after a checkpoint of the step just done.
        UsageError: training does not converge, or does not fit the memory.
        Unavailable: whether there is a checkpoint cannot be told.
    """
    steps, every = learner.update.steps, learner.update.checkpoint_every
    _resume(learner, keeper)
    with termination() as asked:
        for _ in _counted(
            range(learner.step, steps), steps - learner.step, not learner.processes.rank and bool(keeper)
        ):
            learner.advance()
            stops = learner.processes.any(asked.is_set() or is_abandoned())
            is_due = learner.step % every == 0 or learner.step == steps
            if keeper and is_due and keeper.guard.is_due(learner):
                keeper.guard.look(learner)
            if keeper and (is_due or stops):
                keeper.save(learner)
            if stops:
                if keeper and not learner.processes.rank:
                    say(f"update: asked to stop, after step {learner.step} of {steps}")
                raise SystemExit(EXIT_TERMINATED)


def _counted(items: range, total: int, is_first: bool) -> Iterable[int]:
    return progress(items, total, "update: steps") if is_first else items


def _resume(learner: Learner, keeper: Keeper | None) -> None:
    """Every process begins where the first one's checkpoint is."""
    is_first = not learner.processes.rank
    found = keeper.resume(learner) if keeper and is_first else None
    if learner.processes.size > 1:
        found = json.loads(learner.processes.share(json.dumps(found).encode()))
        own = learner.state() | (keeper.guard.state()[0] if keeper else {})
        content = learner.processes.share(tensor_bytes(own) if is_first and found else b"")
        if found and not is_first:
            tensors = load(content)
            learner.restore(int(found["step"]), tensors)
            if keeper:
                keeper.guard.restore(tensors, found["guard"])
    if found and not learner.in_step:
        learner.parts = max(learner.parts, int(found["parts"]))
