"""Reproducing: make a version again from what is on record, in a fresh place, and compare.

The run begins after ingest, with the batch as it was stored; every later stage runs with the recorded parameters,
seeds and state. On a CPU the outputs must be equal bit for bit. Where a GPU computed, then or now, the adapter may
differ by a share of `TOLERANCE` of its length (sums are taken in another order) and the gate must say the same.
"""

from __future__ import annotations

import json as documents
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cl_steps.config import RunSpec
from cl_steps.documents import Document, write_json
from cl_steps.errors import UsageError
from cl_steps.formats.openlineage import rehearsal
from cl_steps.ledger.events import RunEvent
from cl_steps.ledger.record import Record
from cl_steps.operations.fork import check_out, fork
from cl_steps.operations.models import record_of
from cl_steps.operations.play import run_step
from cl_steps.pipeline import INGEST, NEW_BASE, STAGES, TONIGHT
from cl_steps.progress import say
from cl_steps.records.builders import devices, environment
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Mainline, reading
from cl_steps.repository.run_branch import RunState, checked_out, open_run, read_run, run_state
from cl_steps.run.context import code_digest
from cl_steps.run.stage import push_branch
from cl_steps.store.digests import object_path
from cl_steps.store.pointers import Out, lock_outs

TOLERANCE = 0.01
"""Relative L2 distance of two adapters that GPUs may differ by."""
ADAPTER = "tonight/candidate/adapter"


def reproduce(line: Line, version: str, to: str | None) -> Document:
    """Make `version` again and compare; the folder `to` keeps what was made.

    Raises:
        UsageError: there is no such version, it is v1, or the folder is taken.
        IntegrityError: what the version was made from is missing or corrupt.
    """
    with reading(line.git) as main, _place(to) as folder, rehearsal():
        record = record_of(main, version)
        copy, event = _prepared(main, line, record, folder)
        for step in STAGES[1:]:
            say(f"{step.name}: {run_step(copy, str(record.run), step.name)}")
        found = compare(record, event, read_run(copy, str(record.run)), Path(copy.store))
        if to:
            check_out(folder, copy)
    return found


def compare(record: Record, event: RunEvent, made: RunState, objects: Path) -> Document:
    """The recorded version beside what was made: outputs, the adapters' distance, inputs that differ, the verdicts.

    Args:
        record: of the version.
        event: of its run.
        made: the branch of the run that made it again.
        objects: the store, a folder, that holds the outputs of both.
    """
    then, now = lock_outs(record.stages), lock_outs(made.lock)
    names = [name for step in STAGES[1:] for name in step.writes if name.startswith(TONIGHT)]
    outputs = [{"path": name, "then": then[name]["md5"], "now": now[name]["md5"]} for name in names]
    distance = adapter_distance(objects, then[ADAPTER], now[ADAPTER])
    verdicts = {"then": event.gate, "now": made.verdict("gate")}
    on_gpu = bool(record.environment.get("devices") or devices(made))
    return {
        "version": record.version,
        "run": record.run,
        "equal": all(output["then"] == output["now"] for output in outputs),
        "within_tolerance": on_gpu and distance <= TOLERANCE and verdicts["then"] == verdicts["now"],
        "outputs": outputs,
        "adapter_distance": distance,
        "gate": verdicts,
        "inputs_that_differ": inputs_that_differ(record, made),
    }


def inputs_that_differ(record: Record, made: RunState) -> list[Document]:
    """What was not as then: code, libraries, image, machine, devices. Data and parameters are taken as stored."""
    then = {"code": record.code, **record.environment, "devices": record.environment.get("devices", [])}
    now = {"code": code_digest(), **environment(), "devices": devices(made)}
    return [
        {"what": name, "then": then.get(name), "now": now.get(name)}
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]


def adapter_distance(objects: Path, one: Out, other: Out) -> float:
    """|a - b| / |a| over all weights of two adapters: 0 where their bytes are equal, infinite where shapes differ."""
    if one["md5"] == other["md5"]:
        return 0.0
    first, second = _weights(objects, str(one["md5"])), _weights(objects, str(other["md5"]))
    if {name: value.shape for name, value in first.items()} != {name: value.shape for name, value in second.items()}:
        return float("inf")
    squares = sum(float(((first[name] - second[name]) ** 2).sum()) for name in first)
    return float(np.sqrt(squares / max(sum(float((value**2).sum()) for value in first.values()), 1e-30)))


def _prepared(main: Mainline, line: Line, record: Record, folder: Path) -> tuple[Line, RunEvent]:
    """A line of its own with the run's branch as it was after ingest."""
    if record.run is None:
        raise UsageError(f"{record.version} is the base as it came, no run made it: `retain verify` checks it")
    ledger = main.ledger()
    event, stage = ledger.runs[record.run], record.stages[INGEST.name]
    outs = [out for out in stage["outs"] if out["path"].startswith(TONIGHT)]
    erased = {**dict.fromkeys(ledger.replaced, "a withdrawal"), **ledger.erased}
    for out in outs:
        if out["md5"] in erased:
            why = erased[out["md5"]]
            raise UsageError(f"{record.version} cannot be made again: {out['path']} was erased by {why}")
    stored = lock_outs(record.stages)
    copy = fork(main, line, event.base, folder, [*outs, *(stored[p] for p in (ADAPTER, NEW_BASE) if p in stored)])
    spec = spec_of(event)
    open_run(copy, spec, again=True)
    with checked_out(copy, spec.id) as root:
        lock = {"schema": "2.0", "stages": {**run_state(root).lock, INGEST.name: stage}}
        (root / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False), encoding="utf-8")
        write_json(root / INGEST.report, record.reports[INGEST.name])
        push_branch(root, copy, spec.id, "ingest: as it was stored")
    return copy, event


def spec_of(event: RunEvent) -> RunSpec:
    """What was special about a run, from its event."""
    trigger = event.trigger
    return RunSpec.model_validate(
        {
            "id": event.run,
            "trigger": trigger.kind,
            "by": trigger.by,
            "reason": trigger.reason,
            "batch": event.batch.of if event.batch else None,
            "rebase": event.rebase.after if event.rebase else None,
            "force": trigger.force,
            "set": trigger.set,
        }
    )


@contextmanager
def _place(to: str | None) -> Iterator[Path]:
    """The folder to keep, or one that is gone afterwards."""
    if to:
        refuse_taken(Path(to))
        Path(to).mkdir(parents=True, exist_ok=True)
        yield Path(to).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="retain-", ignore_cleanup_errors=True) as scratch:
        yield Path(scratch)


def refuse_taken(folder: Path) -> None:
    """Raise UsageError where something lies in the folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty: name a folder that is not there yet")


def _weights(objects: Path, md5: str) -> dict[str, Any]:
    from safetensors.numpy import load

    found: dict[str, Any] = {}
    for entry in documents.loads(_object(objects, md5)):
        found |= load(_object(objects, entry["md5"]))
    return found


def _object(objects: Path, md5: str) -> bytes:
    return (objects / object_path(md5)).read_bytes()
