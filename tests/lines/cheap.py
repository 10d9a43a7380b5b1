"""Runs as their stages would have left them, written straight into Git and the store: 0.1 seconds each.

For tests that need many runs and look at what happens to them afterwards. Each output holds one file `bytes` that says
which output of which run it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from cl_steps.config import RunSpec
from cl_steps.documents import json_text
from cl_steps.ledger.record import Record
from cl_steps.pipeline import STAGES, Step
from cl_steps.records.builders import first_record
from cl_steps.repository.beginning import beginning_files, begun_ref
from cl_steps.repository.git import git
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Change, Mainline, reading
from cl_steps.run.context import REPORT_SCHEMA, code_digest
from cl_steps.store.pointers import read_dvc_file
from tests.lasting import STATE
from tests.lines.small import SLICES

Verdicts = Mapping[str, str | None]


def put_run(line: Line, run: str, verdicts: Verdicts, **spec: Any) -> None:
    """A branch of a run that began on main as it is now, whose stages named in `verdicts` gave them."""
    with reading(line.git) as main:
        put_runs(main, line, [run], verdicts, **spec)


def put_runs(main: Mainline, line: Line, runs: list[str], verdicts: Verdicts, **spec: Any) -> None:
    """As `put_run`, for many runs at once."""
    steps = [step for step in STAGES if step.name in verdicts]
    refs = []
    for run in runs:
        facts = {"id": run, "base": main.tip, "state": main.tree("state"), "started": _now(), **spec}
        stages = {step.name: _stage(main, Path(line.store), step, run) for step in steps}
        begun = main.commit(Change(beginning_files(main, RunSpec(**facts)), f"run {run}: begin\n"))
        files = {step.report: _report(step, run, verdicts[step.name]) for step in steps}
        files |= {"dvc.lock": yaml.safe_dump({"schema": "2.0", "stages": stages}).encode()}
        files |= {"reports/junit.xml": b"<testsuites/>"} if "gate" in verdicts else {}
        commit = main.commit(Change(files, f"run {run}: all at once\n\nRun-Id: {run}\n"), parent=begun)
        refs += [f"{commit}:refs/heads/runs/{run}", f"{begun}:{begun_ref(run)}"]
    git(main.folder, "push", "-q", line.git, *refs)


def put_folder(store: Path, content: bytes) -> dict[str, Any]:
    """A folder with one file, as objects of the store; returns the output as `dvc.lock` names it, without its path."""
    file = _put(store, content)
    listing = json.dumps([{"md5": file, "relpath": "bytes"}], sort_keys=True).encode()
    return {"hash": "md5", "md5": _put(store, listing, ".dir"), "size": len(content), "nfiles": 1}


def put_first_version(state: Path) -> Record:
    """A base and an adapter of one file each in `state`; returns the record of v1, which they are."""
    for part in ("adapter", "base"):
        (state / part / "deep").mkdir(parents=True)
        (state / part / "deep" / "weights").write_text(part, encoding="utf-8")
    digests = {"base": f"{'b' * 32}.dir", "extractor": f"{'e' * 32}.dir", **STATE, "adapter": f"{'a' * 32}.dir"}
    return first_record(digests, ["old"], {"seed": 7, "rate": 0.5}, state)


def _stage(main: Mainline, store: Path, step: Step, run: str) -> dict[str, Any]:
    tonight = (name for name in step.writes if name.startswith("tonight/"))
    outs = [{"path": name, **put_folder(store, f"{name} {run}".encode())} for name in tonight]
    state = (name for name in step.reads if name.startswith("state/") and main.read(f"{name}.dvc"))
    deps = [
        {"path": name, "hash": "md5", "md5": read_dvc_file(main.read(f"{name}.dvc") or b"")["md5"]} for name in state
    ]
    return {"cmd": f"retain step {step.name}", "deps": deps, "outs": outs}


def _report(step: Step, run: str, verdict: str | None) -> bytes:
    document = {"schema": REPORT_SCHEMA, "step": step.name, "run": run, "status": "done", "code": code_digest()}
    why = f"{step.name} says {verdict}"
    return json_text({**document, "verdict": verdict, "why": why, "figures": _figures(step.name, run)}).encode()


def _figures(step: str, run: str) -> dict[str, Any]:
    if step == "ingest":
        batch = {"runs": [run], "assets": 20, "slices": {"old": {"train": 20}}, "digest": "d" * 64}
        return {"intake": {"assets": 20, "slices": {"old": 20}}, "quarantined": 0, "batch": batch}
    return {"slices": SLICES} if step == "evaluate" else {}


def _put(store: Path, content: bytes, suffix: str = "") -> str:
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    path = store / "files" / "md5" / digest[:2] / f"{digest[2:]}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return digest + suffix


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
