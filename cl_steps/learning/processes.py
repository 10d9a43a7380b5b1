"""Processes that learn together: each computes its share of a step, all apply the same update, the first one keeps it.

`torch.distributed`, gloo on a CPU and NCCL on GPUs, told by the environment that a launcher sets (RANK, WORLD_SIZE,
LOCAL_RANK, MASTER_ADDR, MASTER_PORT). Alone, nothing is summed and nothing is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import torch
from torch import Tensor, nn

PATIENCE = timedelta(minutes=30)
"""How long the others wait for one, for example while it looks at the probes; one that died is noticed at once."""


class Processes(Protocol):
    """Who learns together; every one calls the same methods in the same order."""

    @property
    def rank(self) -> int:
        """Which of them this is, from 0."""

    @property
    def size(self) -> int:
        """How many they are."""

    @property
    def here(self) -> tuple[int, int]:
        """Which of those on this node it is, from 0, and how many these are."""

    def sum(self, terms: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Sum the gradients of the parameters over all processes, in place; returns the sum of `terms`."""

    def any(self, flag: bool) -> bool:
        """Whether some process says so."""

    def share(self, content: bytes) -> bytes:
        """The content that the first process has; the others' is ignored."""


@dataclass(frozen=True)
class Alone:
    """One process: nothing to agree on."""

    rank: int = 0
    size: int = 1
    here: tuple[int, int] = (0, 1)

    def sum(self, terms: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:  # noqa: ARG002
        """See `Processes`."""
        return terms

    def any(self, flag: bool) -> bool:
        """See `Processes`."""
        return flag

    def share(self, content: bytes) -> bytes:
        """See `Processes`."""
        return content


ALONE = Alone()


@dataclass(frozen=True)
class Group:
    """One of several processes; tensors are exchanged on `device`."""

    rank: int
    size: int
    here: tuple[int, int]
    device: torch.device

    def sum(self, terms: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
        """See `Processes`; one exchange for all."""
        gradients = [torch.zeros_like(own) if own.grad is None else own.grad for own in parameters]
        row = torch.cat([*(gradient.flatten() for gradient in gradients), terms])
        torch.distributed.all_reduce(row)
        at = 0
        for own in parameters:
            own.grad = row[at : at + own.numel()].view_as(own)
            at += own.numel()
        return row[at:]

    def any(self, flag: bool) -> bool:
        """See `Processes`."""
        flags = torch.tensor(int(flag), device=self.device)
        torch.distributed.all_reduce(flags)
        return bool(flags)

    def share(self, content: bytes) -> bytes:
        """See `Processes`."""
        length = torch.tensor(len(content), device=self.device)
        torch.distributed.broadcast(length, src=0)
        if not int(length):
            return b""
        row = torch.zeros(int(length), dtype=torch.uint8, device=self.device)
        if self.rank == 0:
            row.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        torch.distributed.broadcast(row, src=0)
        return row.cpu().numpy().tobytes()


@contextmanager
def joined(device: torch.device) -> Iterator[Group]:
    """Within it this process is one of those that the launcher started; each has a GPU of its own."""
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    here = (int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))
    yield Group(torch.distributed.get_rank(), torch.distributed.get_world_size(), here, device)
    torch.distributed.destroy_process_group()
