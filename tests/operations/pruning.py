"""A line to prune, made once and copied, and what is looked at afterwards."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cl_steps.commands.answer import refuse
from cl_steps.commands.prune import prune
from cl_steps.operations.retention import mirrored, needs
from cl_steps.repository.git import remote_refs
from cl_steps.repository.line import Line, local
from cl_steps.steps import close, promote
from cl_steps.store.objects import open_store
from tests.lines.cheap import put_run
from tests.lines.small import GOOD, make_workspace
from tests.once import made_once

ALARM = {"ingest": "ok", "drift": "alarming"}
QUIET = {"ingest": "ok", "drift": "quiet"}
REJECT = {**GOOD, "gate": "reject"}
OLD = {"rejected", "quiet", "failed", "stale", "refused"}
"""The runs of the line that came to nothing."""


def line_that_lived(folder: Path) -> Line:
    """A line of its own with a run of every end, one that waits for an answer and one under way; objects are old."""
    shutil.copytree(_lived(), folder, symlinks=True)
    line = local(folder)
    line.save(folder)
    return line


def _lived() -> Path:
    return made_once("lived", _live)


def _live(folder: Path) -> None:
    line = make_workspace(folder)
    ends = {"rejected": REJECT, "quiet": QUIET, "failed": {"ingest": "ok"}, "refused": ALARM, "waiting": ALARM}
    for run in ("stale", "good"):
        put_run(line, run, GOOD)
    with patch.object(promote, "_check_figures", lambda *_: None):
        promote.run(line, "good")
    for run, verdicts in ends.items():
        put_run(line, run, verdicts)
    for run in ("good", "stale", *ends):
        close.run(line, run)
    refuse("refused", "<b>no</b>", "ann", "command line", str(folder))
    put_run(line, "under-way", {"ingest": "ok", "drift": "drifted", "update": None})
    make_old(line)


def make_old(line: Line, days: float = 3) -> None:
    """Set all objects' times back."""
    for path in (path for path in Path(line.store).rglob("*") if path.is_file()):
        os.utime(path, (time.time() - days * 86400,) * 2)


def run_prune(line: Line, days: float = 0, dry_run: bool = False) -> dict[str, Any]:
    """What `retain prune --json` says."""
    document = prune(str(Path(line.git).parents[1]), days, dry_run, json=True)
    assert isinstance(document, dict)
    return document


def branches(line: Line) -> set[str]:
    """The runs that have a branch."""
    return {ref.removeprefix("refs/heads/runs/") for ref in remote_refs(line.git, "refs/heads/runs/*")}


def holds(line: Line, words: str) -> bool:
    """Whether some object of the store begins so; the stub's objects say what they are."""
    found = (path for path in Path(line.store).rglob("*") if path.is_file())
    return any(path.read_bytes().startswith(words.encode()) for path in found)


def whole(line: Line) -> bool:
    """Whether the store holds all that main ever named, every record and every remaining run."""
    with mirrored(line.git) as (main, refs), open_store(line.store) as store:
        needed = needs(main, refs)
        return store.with_files(needed.listed, needed.listed) <= store.inventory().sizes.keys()
