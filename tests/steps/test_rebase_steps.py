"""The steps `update` and `evaluate` in a rebase, on tiny bases that differ in what matters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cl_steps.config import RunSpec
from cl_steps.data.shards import write_dataset
from cl_steps.documents import json_text
from cl_steps.errors import NoUsableData
from cl_steps.learning.encoding import encoder
from cl_steps.learning.guard import Bank, Looks
from cl_steps.learning.processes import ALONE
from cl_steps.models.lora import adapter_digest
from cl_steps.models.model import open_denoiser
from cl_steps.run.context import Context, StepReport
from cl_steps.stats.figures import Figures, read_figures
from cl_steps.steps import evaluate, gate, update
from tests.steps import test_evaluate as evaluating
from tests.steps import test_update as updating
from tests.tiny import make_tiny_pipeline

RUN = RunSpec(rebase="0" * 32 + ".dir", by="ops", reason="it draws hands")
NEW = "tonight/base"

Make = Callable[[Path], Path]
OTHERS: dict[str, Make] = {
    "image size": lambda folder: make_tiny_pipeline(folder, seed=1, side=24),
    "autoencoder": lambda folder: make_tiny_pipeline(folder, seed=1, channels=8),
    "prediction": lambda folder: _with_old_encoder(make_tiny_pipeline(folder, "v_prediction", seed=1)),
    "noise schedule": lambda folder: _other_schedule(_with_old_encoder(make_tiny_pipeline(folder, seed=1))),
}


def _with_old_encoder(folder: Path) -> Path:
    """The autoencoder of the base with seed 0."""
    old = make_tiny_pipeline(folder.with_name("old"))
    shutil.rmtree(folder / "vae")
    shutil.move(old / "vae", folder / "vae")
    shutil.rmtree(old)
    return folder


def _other_schedule(folder: Path) -> Path:
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "beta_end": 0.02}))
    return folder


@pytest.fixture(scope="module")
def learning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `update` reads: a replay buffer, no batch, and a new base of another prediction and latent space."""
    root = updating.make_workspace(tmp_path_factory.mktemp("workspace"))
    shutil.rmtree(root / "tonight/batch")
    write_dataset(root / "tonight/batch", [])
    make_tiny_pipeline(root / NEW, "v_prediction", seed=1, channels=8)
    return root


def learn(root: Path) -> StepReport:
    return update.run(Context(root, updating.PARAMS, RUN))


def test_an_empty_adapter_on_the_new_base_learns_what_was_kept(learning: Path, tmp_path: Path) -> None:
    root = shutil.copytree(learning, tmp_path / "line")
    report = learn(root)
    figures, made = report.figures, updating.outputs(root)
    assert "16 replayed images on the new base in 6 steps" in report.why
    assert (figures["method"], figures["examples_new"], figures["examples_replay"]) == ("rebase", 0, 16)
    assert (figures["loss_new"], figures["loss_distillation"]) == (None, None)
    assert figures["loss_replay"] > 0
    assert (set(figures["probe"]["old"]), figures["probe"]["new"]) == ({"old a", "old b"}, {})
    assert evaluating.everything(root / "tonight/candidate/replay") == evaluating.everything(root / "state/replay")
    open_denoiser(root / NEW, updating.PARAMS.compute).adapters.load("it fits", root / "tonight/candidate/adapter")
    key = update.run_key(Context(root, updating.PARAMS, RUN))
    assert key != update.run_key(Context(root, updating.PARAMS, RunSpec()))
    other_champion(root)
    assert (json_text(learn(root).figures), updating.outputs(root)) == (json_text(figures), made)


def other_champion(root: Path) -> None:
    """Another adapter in its place, which a rebase must not learn from."""
    denoiser = open_denoiser(root / "state/base", updating.PARAMS.compute)
    denoiser.adapters.load("default", root / "state/adapter")
    for weight in denoiser.adapters.weights("default").values():
        weight.data.add_(1)
    denoiser.adapters.save("default", root / "state/adapter")


def test_the_guard_compares_with_the_new_base_as_it_came(learning: Path, tmp_path: Path) -> None:
    root = shutil.copytree(learning, tmp_path / "line")
    probe = learn(root).figures["probe"]["old"]
    denoiser = open_denoiser(root / NEW, updating.PARAMS.compute)
    [pool] = encoder(denoiser, ALONE, None, tmp_path / "encoded").pools([(root / "state/replay", "probe")])
    bank = Bank.of(pool, updating.PARAMS.seed, Looks.within(updating.PARAMS.update, 2))
    losses = bank.measure(denoiser, None)  # type: ignore[arg-type]
    for name in ("old a", "old b"):
        rows = [place for place, own in enumerate(bank.pool.slices) if own == name]
        assert probe[name]["teacher"] == pytest.approx(float(losses[rows].mean()))
        assert probe[name]["candidate"] != probe[name]["teacher"]


def test_a_line_that_kept_nothing_has_nothing_to_learn(learning: Path, tmp_path: Path) -> None:
    root = shutil.copytree(learning, tmp_path / "line")
    shutil.rmtree(root / "state/replay")
    write_dataset(root / "state/replay", [])
    with pytest.raises(NoUsableData, match="replay buffer"):
        learn(root)


@pytest.fixture(scope="module")
def measuring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `evaluate` reads, with an empty batch and without a new base yet; red has an anchor of its own."""
    root = evaluating.make_line(tmp_path_factory.mktemp("line"))
    shutil.rmtree(root / "tonight/batch")
    write_dataset(root / "tonight/batch", [])
    digest = adapter_digest(evaluating.adapter(root, "other", 5))
    shutil.copytree(root / "other", root / "state/anchors" / digest)
    champion = adapter_digest(root / "state/adapter")
    (root / "state/anchors/anchors.json").write_text(json.dumps({"red": digest, "blue": champion}))
    return root


def measure(root: Path) -> tuple[StepReport, Figures]:
    torch.set_num_threads(1)
    report = evaluate.run(Context(root, evaluating.PARAMS, RUN))
    return report, read_figures(root / gate.FIGURES)


def fitting(root: Path) -> None:
    """An adapter of the new base as the candidate."""
    denoiser = open_denoiser(root / NEW, evaluating.PARAMS.compute)
    denoiser.adapters.add_fresh("default", evaluating.LORA, 0)
    denoiser.adapters.save("default", root / "tonight/candidate/adapter")


def test_the_old_base_as_the_new_one_differs_by_exactly_nothing(measuring: Path, tmp_path: Path) -> None:
    root = shutil.copytree(measuring, tmp_path / "line")
    shutil.copytree(root / "state/base", root / NEW)
    report, figures = measure(root)
    for name in ("red", "blue"):
        pair = figures.paired("candidate", "champion", name, "loss")
        assert pair is not None
        assert np.array_equal(*pair)
        assert np.array_equal(figures.samples["candidate", name].features, figures.samples["champion", name].features)
    assert {name for model, name in figures.samples if model == "anchor"} == {"red"}
    assert "no losses" not in report.why
    anchors = json.loads((root / "tonight/evaluation/anchors/anchors.json").read_text())
    assert anchors == dict.fromkeys(("red", "blue"), adapter_digest(root / "tonight/candidate/adapter"))
    assert len(list((root / "tonight/evaluation/anchors").glob("*/"))) == 1


def test_another_unet_is_measured_in_the_same_losses(measuring: Path, tmp_path: Path) -> None:
    root = shutil.copytree(measuring, tmp_path / "line")
    _with_old_encoder(make_tiny_pipeline(root / NEW, seed=1))
    report, figures = measure(root)
    pair = figures.paired("candidate", "champion", "red", "loss")
    assert pair is not None
    assert not np.array_equal(*pair)
    assert not any("loss" in why for why in report.figures["left_out"].values())


@pytest.mark.parametrize("what", OTHERS)
def test_losses_that_do_not_compare_are_left_out(measuring: Path, tmp_path: Path, what: str) -> None:
    root = shutil.copytree(measuring, tmp_path / "line")
    OTHERS[what](root / NEW)
    fitting(root)
    report, figures = measure(root)
    reasons = {why["loss"] for why in report.figures["left_out"].values()}
    assert len(report.figures["left_out"]) == 2
    assert all(what in reason for reason in reasons)
    assert f"no losses: {next(iter(reasons))}" in report.why
    assert not any(metric == "loss" for _, _, metric in figures.items)
    checks = gate.decide(root / gate.FIGURES, evaluating.PARAMS).checks
    assert {check.metric for check in checks} >= {"kid", "diversity"}
    assert "loss" not in {check.metric for check in checks}
