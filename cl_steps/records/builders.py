"""What is written down for ever: the event of a run and the record of a version."""

from __future__ import annotations

import getpass
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar, get_args

from cl_steps.digests import file_sha256
from cl_steps.documents import Json
from cl_steps.errors import IntegrityError
from cl_steps.ledger.champion import Champion
from cl_steps.ledger.events import EVENT_SCHEMA, Act, RebaseEvent, RunEvent, event_path
from cl_steps.ledger.record import RECORD_SCHEMA, Record
from cl_steps.ledger.times import gpu_seconds
from cl_steps.pipeline import NEW_BASE, NEXT_STATE, STAGES, Outcome
from cl_steps.repository.beginning import Beginning
from cl_steps.repository.mainline import Mainline
from cl_steps.repository.rebase_branch import STAGE
from cl_steps.repository.run_branch import RunState
from cl_steps.run.context import code_digest
from cl_steps.store.pointers import Out, dvc_file, lock_outs, read_dvc_file

Made = TypeVar("Made", bound=Act)
LIBRARIES = ("torch", "torchao", "diffusers", "transformers", "peft", "safetensors", "dvc", "evidently", "numpy")


@dataclass(frozen=True)
class Basis:
    """What a promotion rests on, beside the run's branch and main.

    Attributes:
        begun: how the run began.
        parameters: main's params.yaml then.
        approval: a person's yes, where one was wanted.
        judged: the signed statements of the run's judges, by step.
        custody: in whose hands the keys are: `no keys`, `one person` or `separate`.
        adapter: the folder with the candidate's adapter.
    """

    begun: Beginning
    parameters: Json
    approval: Json | None
    judged: Mapping[str, str]
    custody: str
    adapter: Path


def now(moment: datetime | None = None) -> str:
    """A moment as it is written down: `Mainline.moment` of what is written on main; None: by this machine's clock."""
    return (moment or datetime.now(UTC)).isoformat(timespec="seconds")


def act(model: type[Made], about: str, moment: datetime, said: Json) -> tuple[str, Made]:
    """What a person did, as main will say it: the path of its file, and the event, which has `said` beside its head.

    Raises:
        WrongShape: that is no event of this kind.
    """
    [kind] = get_args(model.model_fields["kind"].annotation)
    path = event_path(kind, about, moment)
    head = {"schema": EVENT_SCHEMA, "kind": kind, "id": Path(path).stem, "at": now(moment)}
    return path, model.from_document({**head, **said})


def run_event(
    state: RunState,
    outcome: Outcome,
    why: str,
    version: str | None = None,
    rebase: RebaseEvent | None = None,
    at: datetime | None = None,
    again: int = 0,
) -> RunEvent:
    """The event that closes a run: what came in, what it was about, and how it ended; `rebase` is the act behind it.

    `again` is how many of the assets that it took in another run had taken in first.
    """
    spec, ingest = state.spec, state.figures("ingest")
    batch = dict(ingest.get("batch") or {}) or None
    if batch is not None:
        batch["of"] = spec.batch
    return RunEvent.from_document(
        {
            "schema": EVENT_SCHEMA,
            "kind": "run",
            "run": spec.id,
            "at": now(at),
            "trigger": {
                "kind": spec.trigger,
                "by": spec.by,
                "reason": spec.reason,
                "set": spec.set,
                "force": spec.force,
            },
            "outcome": outcome,
            "why": why,
            "version": version,
            "drift": state.verdict("drift"),
            "gate": state.verdict("gate"),
            "intake": _intake(state, ingest, again),
            "batch": batch,
            "base": spec.base,
            "tip": state.tip,
            "seconds": _seconds_since(spec.started),
            **cost(state),
            **_rebase(rebase),
        }
    )


def asked_rebase(main: Mainline, state: RunState) -> RebaseEvent | None:
    """The act of the person who asked a run to put a new base under the line; None for any other run.

    Raises:
        IntegrityError: the run's branch and main do not say the same of it.
    """
    asked = main.ledger().rebases.get(state.spec.id)
    if (asked.after["md5"] if asked else None) != state.spec.rebase:
        raise IntegrityError(f"run {state.spec.id} brings another base than a person asked for on main: do not use it")
    if asked and lock_outs(state.lock).get(NEW_BASE, {}).get("md5") != asked.after["md5"]:
        raise IntegrityError(
            f"the lock of run {state.spec.id} names another base than a person asked for: do not use it"
        )
    return asked


def intake_file(state: RunState) -> dict[str, bytes]:
    """The `.dvc` file that keeps what this run took in, under `data/`; nothing if it took in nothing."""
    out = lock_outs(state.lock).get("tonight/intake")
    ingest = state.figures("ingest")
    kept = ingest.get("intake", {}).get("assets") or ingest.get("quarantined")
    return {f"data/{state.spec.id}.dvc": dvc_file(out, state.spec.id)} if out and kept else {}


def first_record(digests: Mapping[str, str], slices: Iterable[str], parameters: Json, state: Path) -> Record:
    """The record of v1, the base as it came: md5 of each part of `state`, the folder that they lie in."""
    return Record.from_document(
        {
            "schema": RECORD_SCHEMA,
            "version": "v1",
            "parent": None,
            "main": None,
            "run": None,
            "created": now(),
            "trigger": {"kind": "manual", "by": "", "reason": "the base as it came"},
            "approval": None,
            "begun": None,
            "judged": {},
            "custody": None,
            "digests": {"base": digests["base"], "extractor": digests["extractor"], "state": dict(digests)},
            "files": {**files_of(state / "adapter", "adapter"), **files_of(state / "base", "base")},
            "parameters": {"file": dict(parameters), "set": {}},
            "code": code_digest(),
            "environment": environment(),
            "slices": {name: {} for name in slices},
        }
    )


def version_record(main: Mainline, state: RunState, number: int, champion: Champion, basis: Basis) -> Record:
    """Everything that version `number` was made from and judged by.

    `main` names the commit that the version's own follows: who signs the record vouches for all of main's history.
    Of a rebase the record names the act of the person who asked for it, and the base is the new one.

    Raises:
        IntegrityError: as `asked_rebase`.
    """
    outs, asked = lock_outs(state.lock), asked_rebase(main, state)
    evaluated = state.figures("evaluate")["slices"]
    return Record.from_document(
        {
            "schema": RECORD_SCHEMA,
            "version": f"v{number}",
            "parent": champion.version,
            "main": main.tip,
            "run": state.spec.id,
            "created": now(main.moment()),
            "trigger": {"kind": state.spec.trigger, "by": state.spec.by, "reason": state.spec.reason},
            "approval": dict(basis.approval) if basis.approval else None,
            "begun": {"commit": basis.begun.commit, "main": basis.begun.base},
            "judged": dict(basis.judged),
            "custody": basis.custody,
            "digests": {
                "batch": state.batch["digest"],
                "teacher": _state_out(main, "adapter")["md5"],
                "base": outs[NEW_BASE]["md5"] if asked else _state_out(main, "base")["md5"],
                "extractor": _state_out(main, "extractor")["md5"],
                "state": {name: outs[path]["md5"] for name, path in NEXT_STATE.items()},
            },
            "files": {
                **files_of(basis.adapter, "adapter"),
                **(asked.files if asked else _base_files(main, champion.version)),
            },
            "stages": {
                name: state.lock[name] for name in (*([STAGE] if asked else []), *(step.name for step in STAGES))
            },
            "parameters": {"file": dict(basis.parameters), "set": state.spec.set},
            "code": code_digest(),
            "environment": {**environment(), "devices": devices(state)},
            "reports": {name: report.document() for name, report in state.reports.items()},
            "slices": {
                name: {metric: values["candidate"] for metric, values in metrics.items()}
                for name, metrics in evaluated.items()
            },
            "seconds": _seconds_since(state.spec.started),
            **cost(state),
            **_rebase(asked),
        }
    )


def files_of(folder: Path, name: str) -> dict[str, str]:
    """The SHA-256 of every file of a folder, by its path below `name`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {f"{name}/{path.relative_to(folder).as_posix()}": file_sha256(path) for path in files}


def cost(state: RunState) -> dict[str, Any]:
    """What each step took and where it ran, and the GPU-seconds of all together."""
    return {"times": state.times, "gpu_seconds": gpu_seconds(state.times)}


def devices(state: RunState) -> list[str]:
    """The names of the GPUs that steps of the run computed on; none on a CPU."""
    return sorted({str(spent["name"]) for spent in state.times.values() if "name" in spent})


def environment() -> dict[str, Any]:
    """The image (empty where there is none) and the versions of what computed; no names of machines."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    here = {"python": platform.python_version(), "platform": sys.platform, "machine": platform.machine()}
    return {"image": os.environ.get("RETAIN_IMAGE", ""), **here, **found}


def _rebase(asked: RebaseEvent | None) -> dict[str, Any]:
    """What event and record say of a rebase; nothing of other runs."""
    if asked is None:
        return {}
    return {"rebase": {"event": asked.id, "before": asked.before, "after": asked.after["md5"]}}


def _intake(state: RunState, ingest: Json, again: int) -> dict[str, Any] | None:
    out = lock_outs(state.lock).get("tonight/intake")
    if not out:
        return None
    facts = {
        "md5": out["md5"],
        "quarantined": ingest.get("quarantined", 0),
        "quarantine_keys": ingest.get("quarantine_keys", []),
    }
    taken = ingest.get("intake") or {"assets": 0, "slices": {}}
    return {**facts, **taken, **({"again": again} if again else {})}


def _base_files(main: Mainline, parent: str) -> dict[str, str]:
    """The base's, as the parent's record holds them: a promotion fetches no base."""
    return {name: digest for name, digest in main.record(parent).files.items() if name.startswith("base/")}


def _state_out(main: Mainline, name: str) -> Out:
    content = main.read(f"state/{name}.dvc")
    assert content is not None, f"main has no state/{name}.dvc"
    return read_dvc_file(content)


def _seconds_since(started: str) -> float:
    """0 where the clock of the machine that began the run was ahead of ours."""
    return max(0.0, round((datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds(), 1))


def person() -> str:
    """Who started this process, as far as it can be known without authentication."""
    try:
        return f"{getpass.getuser()} (claimed)"
    except (KeyError, OSError):
        return "unknown (claimed)"
