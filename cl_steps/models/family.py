"""What a pipeline is, found out by watching it: networks, size, latents, and how guidance is switched off."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from cl_steps.errors import UsageError, first_line
from cl_steps.models.captions import encoded, row_places
from cl_steps.models.direct import tensors
from cl_steps.models.latents import CodeMap, code_map
from cl_steps.models.schedule import GRID, Schedule, is_flow, schedule_of
from cl_steps.models.watching import NetworkCall, Script, Size, Stopped, Values, Watcher, networks

GUIDANCE = ("guidance_scale", "true_cfg_scale")
OFF = (1.0, 0.0)
"""What switches guidance off, in the order in which it is tried."""
SPREADS = (0.4, 2.5)
"""Between which the spread of the loop's first latents counts as 1: few numbers scatter."""
HIGH, LOW = 0.95, 0.05
"""Shares of the timesteps at which different networks may be at work."""


@dataclass(frozen=True)
class Family:
    """What all pipelines of a kind have in common, and this line's size.

    Attributes:
        watcher: sees the loop's networks only; guidance is off.
        codes: latents of pictures.
        rows: which dimension of a caption's conditions has the rows, where it is not the first.
        by_row: whether a call takes one timestep, or one caption, for all its rows.
    """

    watcher: Watcher
    size: Size
    codes: CodeMap
    schedule: Schedule
    rows: Mapping[str, int]
    by_row: bool


def empty_captions(count: int) -> Values:
    """So many, as arguments of a pipeline's call."""
    return {"prompt": [""] * count}


def derive(
    pipeline: DiffusionPipeline,
    device: torch.device,
    size: Size | None = None,
    given: Callable[[int], Values] = empty_captions,
    settings: Mapping[str, Any] | None = None,
) -> Family:
    """Watch a pipeline until all of it is known.

    `size` in place of its own; `given` in place of so many empty captions, as arguments of its call; `settings` are
    arguments of every call besides.

    Raises:
        UsageError: what a property that the loop needs is not there; it says which.
    """
    one, seen = given(1), networks(pipeline)
    high, low = _ends(pipeline)
    begin = Watcher(pipeline, seen, device, dict(settings or {}))
    watcher, surveyed = _without_guidance(begin, size, one, high)
    found = dict.fromkeys((*surveyed.loop, *_survey(watcher, size, one, low, surveyed.known).loop))
    watcher = replace(watcher, networks={name: seen[name] for name in found})
    size = size or surveyed.size
    codes = _codes(watcher, size, one, surveyed)
    schedule = schedule_of(pipeline.scheduler, _levels(watcher, size, one), device)
    places = row_places(*(_conditions(watcher, size, given(count)) for count in (1, 2)))
    return Family(watcher, size, codes, schedule, places or {}, len(found) > 1 or places is None)


def resized(family: Family, size: Size, given: Callable[[int], Values] = empty_captions) -> Family:
    """The same family at another size of picture; noise is as at its own, to which sizes of as many pixels are near.

    Raises:
        UsageError: as `derive`; of a size that does not suit it a pipeline may raise anything else.
    """
    watcher, one = family.watcher, given(1)
    high, _ = _ends(watcher.pipeline)
    codes = _codes(watcher, size, one, _survey(watcher, size, one, high, {}))
    return replace(family, size=size, codes=codes)


def _codes(watcher: Watcher, size: Size, given: Mapping[str, Any], surveyed: Survey) -> CodeMap:
    """How latents of this size are seen by the autoencoder, from a call of it that was watched."""
    begun = surveyed.steps[0][1]
    if surveyed.steps[0][0].shape != begun.shape:
        raise UsageError("what it predicts is not of the shape of its latents")
    if not SPREADS[0] < float(begun.float().std()) < SPREADS[1]:
        raise UsageError("its loop begins with noise whose spread is not 1, in a space that no schedule here knows")
    return code_map(watcher, size, given, begun, surveyed.timesteps[0], dict(surveyed.calls))


def _conditions(watcher: Watcher, size: Size, given: Values) -> Values:
    """What the call makes of texts, or what it is given in their place; without what the network does not see."""
    own = encoded(watcher, size, given) if "prompt" in given else {}
    return own or given


@dataclass
class Survey(Script):
    """Watches a whole call of two steps: who is called between them, with what outcome, and at what size.

    A network is not called twice for arguments of the same shapes: `known` has what it gave.
    """

    timesteps: Tensor
    watcher: Watcher
    known: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.steps: list[tuple[Tensor, Tensor]] = []
        self.size: Size = (0, 0)

    def on_network(self, call: NetworkCall) -> Any:
        """See `Script`."""
        key = (call.name, tuple(leaf.shape for leaf in tensors((call.args, call.kwargs))))
        if key not in self.known:
            self.known[key] = call.run()
        self.size = self.watcher.size_in(sys._getframe()) or self.size
        if len(self.steps) == 1:
            self.calls.append((call.name, self.known[key]))
        return self.known[key]

    def on_step(self, output: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """See `Script`."""
        del t
        self.steps.append((output, sample))
        if len(self.steps) == 2:
            raise Stopped(None)
        return sample

    @property
    def loop(self) -> tuple[str, ...]:
        """The networks at work between the steps."""
        return tuple(name for name, _ in self.calls)

    @property
    def cost(self) -> tuple[int, int]:
        """Calls of networks a step, and how many numbers they give: guidance doubles one or the other."""
        return len(self.calls), sum(leaf.numel() for _, output in self.calls for leaf in tensors(output))


@torch.no_grad()
def _survey(watcher: Watcher, size: Size | None, given: Mapping[str, Any], t: Tensor, known: dict[Any, Any]) -> Survey:
    script = Survey(torch.stack([t, t]), watcher, known)
    watcher.watch(script, size, given)
    return script


def _without_guidance(
    watcher: Watcher, size: Size | None, given: Mapping[str, Any], t: Tensor
) -> tuple[Watcher, Survey]:
    """The watcher whose calls have no guidance: the setting in which the loop asks least of the networks."""
    names = [name for name in GUIDANCE if name in watcher.parameters]
    found: list[tuple[tuple[int, int], Watcher, Survey]] = []
    known: dict[Any, Any] = {}
    failed: Exception | None = None
    for values in product(OFF, repeat=len(names)):
        candidate = replace(watcher, settings={**watcher.settings, **dict(zip(names, values, strict=True))})
        try:
            seen = _survey(candidate, size, given, t, known)
        except Exception as error:  # a pipeline may refuse a setting in any way
            failed = failed or error
            continue
        if seen.calls:
            found.append((seen.cost, candidate, seen))
    if not found:
        why = first_line(failed) if failed else "no network is called between two steps of the scheduler"
        raise UsageError(f"its call has no loop of a network and a scheduler's steps that can be watched: {why:.200}")
    _, watcher, seen = min(found, key=lambda row: row[0])
    return watcher, seen


@dataclass
class Grid(Script):
    """Stops with the noise levels at which the pipeline's own scheduler would sample."""

    timesteps: Tensor | None = None

    def on_timesteps(self, scheduler: Any) -> None:
        """See `Script`."""
        raise Stopped(scheduler.sigmas)


def _levels(watcher: Watcher, size: Size, given: Mapping[str, Any]) -> Tensor:
    """(G,) float64, rising: where the pipeline's sampler is at evenly spaced places of its way, at this size."""
    if not is_flow(watcher.pipeline.scheduler):
        return torch.empty(0)
    sigmas = watcher.watch(Grid(), size, {**given, "num_inference_steps": GRID})
    levels = torch.as_tensor(sigmas, dtype=torch.float64).flatten()[:GRID]
    if watcher.pipeline.scheduler.config.get("invert_sigmas"):
        levels = 1 - levels
    return torch.cat([torch.zeros(1, dtype=torch.float64), levels.sort().values.cpu()])


def _ends(pipeline: DiffusionPipeline) -> tuple[Tensor, Tensor]:
    """A timestep of much noise and one of little."""
    count = int(pipeline.scheduler.config["num_train_timesteps"])
    dtype = torch.float32 if is_flow(pipeline.scheduler) else torch.int64
    high, low = (torch.tensor(share * count).to(dtype) for share in (HIGH, LOW))
    return high, low
