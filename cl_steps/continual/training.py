"""The training loop: steps, looks of the guard, checkpoints, and an orderly stop on SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cl_steps.continual.guard import Guard
from cl_steps.continual.learner import Learner
from cl_steps.diffusion.checkpoints import Checkpoints
from cl_steps.workspace.progress import progress, say

EXIT_TERMINATED = 128 + signal.SIGTERM


def train(learner: Learner, guard: Guard, checkpoints: Checkpoints) -> None:
    """Run the steps that are left, from the latest checkpoint if there is one.

    Raises:
        SystemExit: with status 143 on SIGTERM (an evicted pod), after a checkpoint of the step just done.
        UsageError: training does not converge.
    """
    steps, every = learner.update.steps, learner.update.checkpoint_every
    _resume(learner, guard, checkpoints)
    with termination() as asked:
        for _ in progress(range(learner.step, steps), steps - learner.step, "update: steps"):
            learner.advance()
            is_due = learner.step % every == 0 or learner.step == steps
            if is_due:
                guard.look(learner)
            if is_due or asked.is_set():
                _save(learner, guard, checkpoints)
            if asked.is_set():
                say(f"update: asked to stop, after step {learner.step} of {steps}")
                raise SystemExit(EXIT_TERMINATED)


@contextmanager
def termination() -> Iterator[threading.Event]:
    """An event that SIGTERM sets; outside the main thread, where no signal can be caught, it stays unset."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(_signal: int, _frame: FrameType | None) -> None:
        asked.set()

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def _resume(learner: Learner, guard: Guard, checkpoints: Checkpoints) -> None:
    saved = checkpoints.load()
    if saved is not None:
        learner.restore(saved.step, saved.tensors)
        guard.restore(saved.tensors, saved.facts)
        say(f"update: goes on from step {saved.step} of {learner.update.steps}")


def _save(learner: Learner, guard: Guard, checkpoints: Checkpoints) -> None:
    if not checkpoints.are_kept:
        return
    tensors, facts = guard.state()
    checkpoints.save(learner.step, learner.state() | tensors, facts)
