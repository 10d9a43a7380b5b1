"""One small line of the demo's models that the tests of this folder use in their order: what a user would do."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cl_steps.__main__ import main
from cl_steps.demo.nights import write_initial, write_night
from cl_steps.report import evidently_report
from cl_steps.repository.git import git
from cl_steps.repository.line import local
from tests.lines.small import keyed
from tests.once import made_once

QUICK = {
    "ingest.probe_share": 0.03,
    "update.steps": 4,
    "update.batch_size": 8,
    "update.learning_rate": 1e-5,
    "update.checkpoint_every": 2,
    "evaluate.looks": [12],
    "evaluate.loss_draws": 1,
    "evaluate.images_per_slice": 12,
    "serving.num_inference_steps": 2,
    "serving.guidance_scale": 2.0,
    "compute.threads": 1,
}
"""Almost no learning: the candidate is as good as the champion."""

SETTINGS = tuple(word for key, value in QUICK.items() for word in ("--set", f"{key}={json.dumps(value)}"))

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _a_short_page_of_evidently(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its whole page takes as long as all else in a night here; `tests/report` looks at it."""
    monkeypatch.setattr(evidently_report, "MAX_COLUMNS", 2)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command here; its exit code, what it printed, and what it said."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A line in its first version, with night 1's arrivals in its landing; made once and copied."""
    folder = tmp_path_factory.mktemp("lines") / "line"
    shutil.copytree(made_once("demo-line", _make), folder, symlinks=True)
    found = keyed(local(folder), folder)
    found.save(folder)
    git(folder, "remote", "set-url", "origin", found.git)
    return folder


def _make(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as known:
        write_initial(Path(known), 0)
        assert main(["init", str(folder), "--data", known, "--set", "name=line", *SETTINGS]) == 0
    write_night(folder / "landing" / "night-1", 1, 0)
