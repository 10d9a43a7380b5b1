"""A small signed line whose figures say what its gate says: what promotion checks, it can check.

line = ready(tmp_path / "line")            # run r-1 went through its gate; played once, then copied in no time
forge(line, "r-1", {"params.yaml": b"..."})  # as somebody would who may write the branches of runs and nothing else
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from cl_steps.config import RunSpec
from cl_steps.pipeline import EVALUATE, GATE, STAGES, UPDATE, Step
from cl_steps.repository.git import git
from cl_steps.repository.line import Line, local
from cl_steps.repository.run_branch import open_run
from cl_steps.run.context import Context, StepReport
from cl_steps.run.stage import StepFunction, run_stage
from cl_steps.stats.figures import Figures, write_figures
from cl_steps.verify.judging import CANDIDATE, FIGURES, Judging
from tests.lines.small import GOOD, fake_stage, keyed, make_workspace
from tests.once import made_once
from tests.stats.nights import night

WEIGHTS = "pytorch_lora_weights.safetensors"
SAME = night()
"""Champion and candidate are the same: a known slice held, and nothing new to gain."""


def of_slice(figures: Figures, name: str = "old") -> Figures:
    """Those of `black-ink` alone, as the figures of another slice."""
    plan = replace(figures.plan, slices=(name,), new_slices=(), anchors={name: "champion"})
    items = {(model, name, metric): values for (model, s, metric), values in figures.items.items() if s == "black-ink"}
    samples = {(model, name): block for (model, s), block in figures.samples.items() if s == "black-ink"}
    return Figures(plan, items, samples, {name: figures.real["black-ink"]})


Mend = Callable[[Figures], Figures]


def stage(step: Step, verdict: str | None, figures: Figures, mend: Mend = lambda f: f) -> StepFunction:
    """The fake stage; update writes weights and evaluate figures of them, which `mend` may change."""

    def function(context: Context) -> StepReport:
        report = fake_stage(step, verdict)(context)
        if step.name == UPDATE.name:
            (context.path(CANDIDATE) / WEIGHTS).write_bytes(context.run.id.encode())
        if step.name == EVALUATE.name:
            (context.path(FIGURES) / "bytes").unlink()
            digest = hashlib.sha256((context.path(CANDIDATE) / WEIGHTS).read_bytes()).hexdigest()
            made = of_slice(figures)
            write_figures(context.path(FIGURES), mend(replace(made, plan=replace(made.plan, candidate=digest))))
        return report

    return function


def play(line: Line, run: str, figures: Figures = SAME, verdict: str = "promote", mend: Mend = lambda f: f) -> None:
    """Open a run and play it up to its gate, which says `verdict` whatever the figures say."""
    open_run(line, RunSpec(id=run))
    for step in STAGES:
        given = verdict if step.name == GATE.name else GOOD[step.name]
        run_stage(line, run, step, stage(step, given, figures, mend), Judging(line))


def ready(folder: Path, *, signed: bool = True) -> Line:
    """A line of its own whose run r-1 waits for its promotion."""
    name = "ready-signed" if signed else "ready"
    ready = made_once(name, lambda place: play(make_workspace(place, signed=signed), "r-1"))
    shutil.copytree(ready, folder, symlinks=True)
    line = keyed(local(folder), folder) if signed else local(folder)
    line.save(folder)
    git(folder, "remote", "set-url", "origin", line.git)
    return line


def forge(line: Line, run: str, files: Mapping[str, bytes | None], *, mode: str = "100644", ref: str = "") -> None:
    """Put files (None: remove) on top of a run's branch, or of another ref, past everything of ours."""
    ref = ref or f"refs/heads/runs/{run}"
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "w.git"
        git(None, "clone", "-q", "--mirror", line.git, str(root))
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        git(root, "read-tree", ref, env=index)
        rows = []
        for path, content in files.items():
            if content is None:
                rows.append(f"0 {'0' * 40}\t{path}\n")
            else:
                blob = git(root, "hash-object", "-w", "--stdin", stdin=content).decode().strip()
                rows.append(f"{mode} {blob}\t{path}\n")
        git(root, "update-index", "--index-info", stdin="".join(rows).encode(), env=index)
        tree = git(root, "write-tree", env=index).decode().strip()
        commit = git(root, "commit-tree", tree, "-p", ref, "-m", "forged").decode().strip()
        git(root, "push", "-q", "-f", line.git, f"{commit}:{ref}")


def on_branch(line: Line, run: str, path: str) -> bytes:
    """A file of a run's branch."""
    return git(Path(line.git), "cat-file", "blob", f"refs/heads/runs/{run}:{path}")
