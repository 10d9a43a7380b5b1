"""Two processes with a share of the base each learn what two with all of it learn, whatever the captions' lengths."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cl_steps.config import Compute
from cl_steps.errors import UsageError
from cl_steps.learning.processes import Group
from cl_steps.models.model import Denoiser, open_denoiser
from tests.learning.conftest import MakeLearner
from tests.models.whole import WHOLE
from tests.tiny import make_tiny_pipeline

ROOT = Path(__file__).parents[2]
TWO = Group(0, 2, (0, 2), torch.device("cpu"))


@pytest.mark.slow
def test_two_processes_with_a_share_each_learn_the_same(base: Path, tmp_path: Path) -> None:
    WHOLE["QwenImagePipeline"](tmp_path / "qwen")
    folders = [str(base), str(tmp_path / "qwen")]
    launcher = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, "-m", "tests.learning.sharded", str(tmp_path), *folders]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found.keys() == {"base", "qwen"}
        assert all(row["apart"] < 1e-5 for row in found.values()), found
        assert all(row["held"] < 0.6 for row in found.values()), found


@pytest.mark.parametrize("name", [None, "QwenImagePipeline"])
def test_networks_are_called_equally_often_whatever_the_captions(base: Path, tmp_path: Path, name: str | None) -> None:
    if name:
        WHOLE[name](tmp_path)
    denoiser = open_denoiser(tmp_path if name else base, Compute(device="cpu", threads=1))
    texts = ["a", "b c", "a much longer one"]
    denoiser.keep_step([2], texts)
    [network] = denoiser.family.watcher.networks.values()
    calls: list[object] = []
    network.register_forward_pre_hook(lambda *arguments: calls.append(arguments))
    counts, t = [], denoiser.schedule.at(torch.tensor([0.3, 0.8], dtype=torch.float64))
    for first, second in itertools.combinations_with_replacement(texts, 2):
        calls.clear()
        denoiser.predict(torch.ones((2, *denoiser.latent_shape)), t, denoiser.encode_prompts([first, second]), None)
        counts.append(len(calls))
    assert counts == [counts[0]] * 6
    assert counts[0] == (2 if name else 1)


def test_a_step_that_does_not_divide_evenly_is_refused(make_learner: MakeLearner) -> None:
    with pytest.raises(UsageError, match=r"set update\.batch_size to a multiple of 4 \(2 processes, 1 parts each\)"):
        make_learner(processes=TWO, in_step=True)


@pytest.mark.parametrize("method", ["gem", "ewc", "curriculum"])
def test_methods_with_rows_of_their_own_are_refused(make_learner: MakeLearner, method: str) -> None:
    with pytest.raises(UsageError, match="leave out the other methods"):
        make_learner(processes=TWO, in_step=True, method=method)


def test_pictures_have_one_size_where_the_base_is_shared(tmp_path: Path) -> None:
    base = make_tiny_pipeline(tmp_path, side=32)
    found = [open_denoiser(base, Compute(device="cpu", shard=shard)).size_for((40, 20)) for shard in (False, True)]
    assert found == [(48, 24), (32, 32)]


def test_a_process_in_step_does_not_try_again_out_of_memory(
    make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(processes=TWO, in_step=True, batch_size=8)

    def predict(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Denoiser, "predict", predict)
    with pytest.raises(UsageError, match=r"does not hold this process' part of a step: set compute\.checkpointing"):
        learner.advance()
