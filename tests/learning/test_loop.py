"""Where a process begins that learns with others: where the first one's checkpoint is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cl_steps.learning import loop
from cl_steps.models.tensors import tensor_bytes
from tests.learning.conftest import MakeLearner


@dataclass
class Second:
    """The second of two processes, which is told what the first one has."""

    told: list[bytes]
    said: list[bytes] = field(default_factory=list)
    rank: int = 1
    size: int = 2

    def sum(self, terms: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
        return terms

    def any(self, flag: bool) -> bool:
        return flag

    def share(self, content: bytes) -> bytes:
        self.said.append(content)
        return self.told.pop(0)


def test_another_process_goes_on_from_the_first_ones_checkpoint(make_learner: MakeLearner) -> None:
    first = make_learner()
    for _ in range(2):
        first.advance()
    told = [json.dumps({"step": 2, "parts": 4}).encode(), tensor_bytes(first.state())]
    learner = make_learner(processes=Second(told))
    loop._resume(learner, None)
    assert (learner.step, learner.parts) == (2, 4)
    assert torch.equal(first.student, learner.student)


def test_where_there_is_no_checkpoint_every_process_begins_anew(make_learner: MakeLearner) -> None:
    second = Second([b"null", b""])
    learner = make_learner(processes=second)
    loop._resume(learner, None)
    assert (learner.step, learner.parts) == (0, 1)
    assert second.said == [b"null", b""]
