"""What the machine gives a step, from the environment: processes, nodes, and the parts of each batch.

None of it changes what is computed (beyond rounding), so none of it is a parameter of a line or part of a key.

    RETAIN_MICRO_BATCHES      parts that each process computes its share of a step's batch in, one after the other
    RETAIN_PROCESSES          processes on this node; `auto`: one a visible GPU; unset or 0: one, the step's own
    RETAIN_NODES              nodes that compute one step together, each running the same `retain step`
    RETAIN_NODE_RANK          which of them this is, from 0; else JOB_COMPLETION_INDEX, as an Indexed Job sets it
    MASTER_ADDR, MASTER_PORT  where node 0 is found by the others
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from cl_steps.errors import UsageError

AUTO = -1
PORT = 29500


@dataclass(frozen=True)
class Machine:
    """This node's share in a step: `processes` here (`AUTO` until `counted`) on each of `nodes` nodes."""

    parts: int = 1
    processes: int = 1
    nodes: int = 1
    node: int = 0
    address: str = ""
    port: int = PORT

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Machine:
        """As the environment says; raises UsageError for what is no number or does not fit together."""
        processes = environ.get("RETAIN_PROCESSES") or "1"
        machine = cls(
            parts=_number(environ, "RETAIN_MICRO_BATCHES", 1, least=1),
            processes=AUTO if processes == "auto" else max(1, _number(environ, "RETAIN_PROCESSES", 1)),
            nodes=max(1, _number(environ, "RETAIN_NODES", 1)),
            node=_number(environ, "RETAIN_NODE_RANK", _number(environ, "JOB_COMPLETION_INDEX", 0)),
            address=environ.get("MASTER_ADDR", ""),
            port=_number(environ, "MASTER_PORT", PORT, least=1),
        )
        if machine.nodes == 1:
            return replace(machine, node=0)
        if machine.node >= machine.nodes or not machine.address:
            raise UsageError("RETAIN_NODES needs a RETAIN_NODE_RANK below it and MASTER_ADDR, the address of node 0")
        return machine

    def at_once(self, batch_size: int) -> int:
        """How many items of a batch one process may compute together."""
        return -(-batch_size // self.parts)

    def counted(self, count_gpus: Callable[[], int]) -> Machine:
        """With a number of processes in place of `AUTO`."""
        return replace(self, processes=max(1, count_gpus())) if self.processes == AUTO else self

    @property
    def total(self) -> int:
        """Processes on all nodes."""
        return self.processes * self.nodes

    @property
    def only_helps(self) -> bool:
        """Whether another node stores what comes out."""
        return self.node > 0


def _number(environ: Mapping[str, str], name: str, default: int, least: int = 0) -> int:
    value = environ.get(name) or str(default)
    if not value.isdecimal() or int(value) < least:
        raise UsageError(f"{name} must be a whole number from {least} up, and it is {value!r:.40}")
    return int(value)
