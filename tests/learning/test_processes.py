"""What a process exchanges with others; that several learn what one learns, `test_launch` shows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from cl_steps.learning.processes import Group, joined


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[Group]:
    """A group of one, with all that torch does of it."""
    told = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_PORT": "0"}
    for name, value in {**told, "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    with joined(torch.device("cpu")) as group:
        yield group


def test_a_group_of_one_has_what_it_gives(group: Group) -> None:
    assert (group.rank, group.size) == (0, 1)
    assert [group.any(flag) for flag in (True, False)] == [True, False]
    assert [group.share(content) for content in (b"", b"a\0b")] == [b"", b"a\0b"]


def test_a_weight_without_a_gradient_counts_as_one_that_nothing_pulls(group: Group) -> None:
    pulled, idle = (torch.nn.Parameter(torch.ones(shape)) for shape in ((2, 3), (4,)))
    pulled.grad = torch.arange(6.0).view(2, 3)
    assert group.sum(torch.tensor([1.5, 2.5]), [idle, pulled]).tolist() == [1.5, 2.5]
    assert pulled.grad is not None
    assert torch.equal(pulled.grad, torch.arange(6.0).view(2, 3))
    assert idle.grad is not None
    assert torch.equal(idle.grad, torch.zeros(4))
