"""What an entry of the zoo is, and what makes a random model worth testing with: weights that all have a say."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from diffusers import DiffusionPipeline

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class Tiny:
    """A tiny random model of one pipeline class.

    `build` makes the pipeline: the same weights each time, float32, eval, without text encoders where the class allows.
    `conditions` are a caption's arguments of `__call__` for a number of rows; row i is the same whatever the number.
    `arguments` are what `__call__` must be given besides, whatever the caption.
    """

    build: Callable[[], DiffusionPipeline]
    conditions: Callable[[int], dict[str, object]]
    sizes: tuple[Size, Size]
    arguments: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


def assemble(kind: type[DiffusionPipeline], **parts: object) -> DiffusionPipeline:
    """The pipeline of these parts; what it expects besides (text encoders, tokenizers, safety checkers) is None."""
    wanted = inspect.signature(kind.__init__).parameters.values()
    absent = {one.name: None for one in wanted if one.default is one.empty and one.name != "self"}
    pipeline = kind(**absent | parts)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
            enliven(part)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def seeded(make: Callable[[], DiffusionPipeline]) -> Callable[[], DiffusionPipeline]:
    """Makes the same each time, and leaves the global random state alone."""

    def build() -> DiffusionPipeline:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return make()

    return build


@torch.no_grad()
def enliven(model: torch.nn.Module) -> None:
    """Draws every weight anew: none is zero, as many last layers and gates begin, nor what lay in the memory."""
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.normal_(0, weight[0].numel() ** -0.5)
        else:
            weight.normal_(float((weight == 1).all()), 0.1)


def rows(number: int, *shape: int, seed: int = 0) -> torch.Tensor:
    """Random rows (number, *shape), each drawn on its own."""
    return torch.stack([_row(row, shape, seed) for row in range(number)])


def listed(number: int, *shape: int, seed: int = 0) -> list[torch.Tensor]:
    """The same rows as a list, for pipelines that take one embedding a caption."""
    return list(rows(number, *shape, seed=seed))


def mask(number: int, length: int, dtype: torch.dtype = torch.long) -> torch.Tensor:
    """Which tokens count (number, length): all of every even row, all but the last two of every odd one."""
    lengths = torch.tensor([length - row % 2 * 2 for row in range(number)])
    return (torch.arange(length) < lengths[:, None]).to(dtype)


def guidance_off(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """The arguments that leave the unconditional pass away; entries whose class says it otherwise have their own."""
    known = inspect.signature(type(pipeline).__call__).parameters
    return {name: 1.0 for name in ("guidance_scale", "true_cfg_scale") if name in known}


def _row(row: int, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1000 * seed + row))
