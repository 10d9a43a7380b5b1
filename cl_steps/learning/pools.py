"""What a night learns from, encoded: pools of items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from cl_steps.models.watching import Size


class Latents(Protocol):
    """The latents of items, each without rows and of a shape of its own, on the CPU: a tensor, or what reads a disk."""

    def __getitem__(self, place: int, /) -> Tensor:
        """Of one item."""


@dataclass(frozen=True)
class Pool:
    """N encoded items: latents, captions, slices, and the sizes at which the pictures were encoded."""

    latents: Latents
    texts: tuple[str, ...]
    slices: tuple[str, ...]
    sizes: tuple[Size, ...]

    def __len__(self) -> int:
        return len(self.texts)


EMPTY = Pool((), (), (), ())


@dataclass(frozen=True)
class Pools:
    """What a night learns from; `replay` may be empty.

    `memory` is what there is of old items, whether they are replayed or not; without it, what is replayed.
    """

    new: Pool
    replay: Pool = EMPTY
    memory: Pool = EMPTY

    @property
    def old(self) -> Pool:
        """What a method may remember by."""
        return self.memory if len(self.memory) else self.replay
