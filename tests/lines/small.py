"""A small workspace whose state is a few bytes, and stages that write a few: fast, and all of Git and DVC real."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml

from cl_steps.config import RunSpec
from cl_steps.documents import write_json
from cl_steps.operations.begin import commit_and_push, lay_out, store_state
from cl_steps.pipeline import STAGES, STATE, Step
from cl_steps.records.builders import first_record
from cl_steps.records.keys import JUDGE, SIGNING, TRUSTED, make_keys
from cl_steps.records.signer import version_files
from cl_steps.repository.git import git
from cl_steps.repository.line import Line, local
from cl_steps.repository.run_branch import open_run
from cl_steps.run.context import Context, StepReport
from cl_steps.run.stage import run_stage
from cl_steps.verify.judging import Judging
from tests.once import made_once

KEYS = ".retain/keys"
ROOT = Path(__file__).parents[2]
SLICES = {"old": {"loss": {"champion": 1.0, "candidate": 1.0, "anchor": 1.0}}}


def make_workspace(folder: Path, *, signed: bool = False) -> Line:
    """A published workspace at v1; a `signed` one has keys of its own, as `retain init` makes them.

    Made once and copied, unless it is signed.
    """
    if signed:
        return _make(folder, signed=True)
    shutil.copytree(made_once("workspace", partial(_make, signed=False)), folder, symlinks=True)
    line = local(folder)
    line.save(folder)
    git(folder, "remote", "set-url", "origin", line.git)
    return line


def _make(folder: Path, *, signed: bool) -> Line:
    folder.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "run.yaml").write_text(yaml.safe_dump(RunSpec().model_dump()), encoding="utf-8")
    lay_out(folder)
    for name in STATE:
        (folder / "state" / name).mkdir(parents=True)
        (folder / "state" / name / "bytes").write_text(name, encoding="utf-8")
    digests = store_state(folder)
    champion = {"version": "v1", "seed_plan": 1, "slices": ["old"], "anchors": {"old": "v1"}}
    write_json(folder / "state/champion.json", champion)
    line = with_keys(local(folder), folder) if signed else local(folder)
    record = first_record(digests, ["old"], {"format": 1}, folder / "state")
    for path, content in version_files(line, record, folder / "state/adapter").items():
        (folder / path).write_bytes(content)
    commit_and_push(folder, line)
    return line


def with_keys(line: Line, folder: Path) -> Line:
    """The line with keys that count from now on, under `folder`."""
    make_keys(folder / KEYS, "retain")
    return keyed(line, folder)


def keyed(line: Line, folder: Path) -> Line:
    """The line with the keys that lie under `folder`."""
    keys = folder / KEYS
    return replace(line, signing_key=str(keys / SIGNING), trusted_keys=str(keys / TRUSTED), judge_key=str(keys / JUDGE))


def fake_stage(step: Step, verdict: str | None, assets: int = 20) -> Callable[[Context], StepReport]:
    """A stage that writes the run's id into each of its outputs and gives `verdict`."""

    def function(context: Context) -> StepReport:
        for name in step.writes:
            if name.startswith("tonight/"):
                (context.fresh(name) / "bytes").write_text(f"{name} {context.run.id}", encoding="utf-8")
            else:
                (context.root / name).write_text("<testsuites/>", encoding="utf-8")
        return StepReport(verdict, f"{step.name} says {verdict}", _figures(context, step.name, assets))

    return function


def play(line: Line, run: str, verdicts: dict[str, str | None], **spec: object) -> None:
    """Open a run and run its stages with those verdicts."""
    open_run(line, RunSpec(id=run, **spec))
    for step in STAGES:
        if step.name in verdicts:
            run_stage(line, run, step, fake_stage(step, verdicts[step.name]), Judging(line))


GOOD: dict[str, str | None] = {
    "ingest": "ok",
    "drift": "drifted",
    "update": None,
    "evaluate": None,
    "gate": "promote",
}


def _figures(context: Context, step: str, assets: int) -> dict[str, object]:
    if step == "ingest":
        members = [context.run.id] if not context.run.batch else [context.run.batch]
        batch = {"runs": members, "assets": assets, "slices": {"old": {"train": assets}}, "digest": "d" * 64}
        landing = {"arrived": assets, "digest": "e" * 64}
        intake = {"assets": assets, "slices": {"old": assets}}
        return {"intake": intake, "landing": landing, "quarantined": 0, "batch": batch}
    return {"slices": SLICES} if step == "evaluate" else {}
