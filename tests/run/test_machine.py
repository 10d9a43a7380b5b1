"""What the environment says of the machine, and what it must not say."""

from __future__ import annotations

import pytest

from cl_steps.errors import UsageError
from cl_steps.run.machine import Machine

TWO = {"RETAIN_NODES": "2", "MASTER_ADDR": "node-0"}


def test_without_a_word_a_step_is_one_process() -> None:
    machine = Machine.of({})
    assert (machine.total, machine.parts, machine.only_helps) == (1, 1, False)
    assert Machine.of({"RETAIN_PROCESSES": "0", "RETAIN_NODES": "", "RETAIN_NODE_RANK": "3"}) == machine


def test_processes_are_counted_on_every_node() -> None:
    machine = Machine.of({**TWO, "RETAIN_PROCESSES": "4", "RETAIN_NODE_RANK": "1", "MASTER_PORT": "1234"})
    assert (machine.total, machine.node, machine.only_helps, machine.port) == (8, 1, True, 1234)
    assert Machine.of({**TWO, "JOB_COMPLETION_INDEX": "1"}).only_helps
    assert not Machine.of({**TWO, "JOB_COMPLETION_INDEX": "1", "RETAIN_NODE_RANK": "0"}).only_helps


def test_auto_is_the_number_of_gpus_or_one() -> None:
    machine = Machine.of({"RETAIN_PROCESSES": "auto"})
    assert [machine.counted(lambda count=count: count).total for count in (0, 1, 8)] == [1, 1, 8]  # type: ignore[misc]
    assert Machine.of({"RETAIN_PROCESSES": "3"}).counted(lambda: 8).total == 3


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"RETAIN_PROCESSES": "many"}, "RETAIN_PROCESSES must be a whole number"),
        ({"RETAIN_MICRO_BATCHES": "0"}, "RETAIN_MICRO_BATCHES must be a whole number from 1 up"),
        ({"RETAIN_NODES": "2"}, "MASTER_ADDR"),
        ({**TWO, "RETAIN_NODE_RANK": "2"}, "RETAIN_NODE_RANK below it"),
    ],
)
def test_nonsense_is_refused_with_what_to_write(environ: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Machine.of(environ)
