"""How the trial measures: seconds of a step on a device that works by itself, memory, and a box of time."""

from __future__ import annotations

import gc
import resource
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch


class OutOfTime(BaseException):
    """The box is over; not an Exception, so that no library takes it for one of its own."""


@dataclass(frozen=True)
class Pace:
    """How often a step is repeated: to warm up, in a block, in how many blocks at least, for how many seconds."""

    warm_up: int
    block: int
    least_blocks: int
    seconds: float


STEADY, QUICK = Pace(3, 4, 3, 5.0), Pace(1, 1, 2, 0.0)


@dataclass(frozen=True)
class Timed:
    """What a step takes: the median of blocks of steps, and the most memory since before the first."""

    seconds: float
    peak_bytes: int


@contextmanager
def box(seconds: float) -> Iterator[None]:
    """Raise OutOfTime within it once so many seconds are over; in the main thread only."""

    def over(_: int, __: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def timed(make: Callable[[], Callable[[], object]], device: torch.device, pace: Pace) -> Timed:
    """Make a step and repeat it, on a device that what was measured before has left.

    Blocks of steps are timed, the device waited for at their ends, so that a step which never waits gains by it.
    """
    free(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    step = make()
    _block(step, pace.warm_up, device)
    blocks, end = list[float](), time.perf_counter() + pace.seconds
    while len(blocks) < pace.least_blocks or time.perf_counter() < end:
        blocks.append(_block(step, pace.block, device))
    return Timed(statistics.median(blocks), peak_bytes(device))


def _block(step: Callable[[], object], count: int, device: torch.device) -> float:
    """Seconds a step."""
    wait(device)
    began = time.perf_counter()
    for _ in range(count):
        step()
    wait(device)
    return (time.perf_counter() - began) / count


def wait(device: torch.device) -> None:
    """Until the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(device: torch.device) -> int:
    """The most that was allocated on a GPU; without one, the most that this process ever held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def free(device: torch.device) -> None:
    """Give a GPU's memory back that nothing refers to any more."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
