"""One small line of the demo's models that the tests of this folder use in their order: what a user would do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cl_steps.__main__ import main
from cl_steps.demo.nights import write_initial, write_night

QUICK = {
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
    """A line in its first version, with night 1's arrivals in its landing."""
    place = tmp_path_factory.mktemp("lines")
    write_initial(place / "known", 0)
    assert main(["init", str(place / "line"), "--data", str(place / "known"), *SETTINGS]) == 0
    write_night(place / "line" / "landing" / "night-1", 1, 0)
    return place / "line"
