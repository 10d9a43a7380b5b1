"""A whole `retain rebase` by its command, on tiny pipelines that are genuine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cl_steps.__main__ import main
from cl_steps.repository.line import resolve
from cl_steps.repository.mainline import reading
from tests.commands.conftest import SETTINGS, Cli
from tests.tiny import make_tiny_clip, make_tiny_pipeline

METRICS = ("loss", "fidelity", "kid", "diversity")
LENIENT = [
    word for block in ("total", "nightly") for name in METRICS for word in ("--set", f"gate.{block}.{name}=1000000.0")
]
"""What random weights draw is no better or worse than what other random weights do."""
WHY = ("--reason", "it draws hands")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A line on a tiny base, and another base of another image size, latent space and prediction beside it."""
    folder = tmp_path_factory.mktemp("lines")
    make_tiny_pipeline(folder / "base")
    make_tiny_pipeline(folder / "new", "v_prediction", seed=1, channels=8, side=24)
    make_tiny_clip(folder / "clip")
    models = ("--base", str(folder / "base"), "--extractor", str(folder / "clip"))
    assert main(["init", str(folder / "line"), *models, *SETTINGS, *LENIENT]) == 0
    return folder


def tip(place: Path) -> str:
    with reading(resolve(str(place / "line")).git) as found:
        return found.tip


def test_what_cannot_be_a_new_base_is_refused_before_anything_is_written(place: Path, cli: Cli, tmp_path: Path) -> None:
    before, line = tip(place), place / "line"
    broken = shutil.copytree(place / "new", tmp_path / "broken")
    (broken / "unet/diffusion_pytorch_model.safetensors").unlink()
    (tmp_path / "empty").mkdir()
    for base, words, said in (
        (place / "base", WHY, "on this base already"),
        (tmp_path / "empty", WHY, "is no diffusers pipeline"),
        (broken, WHY, "is no complete diffusers pipeline"),
        ("no such base", WHY, "neither a folder nor a Hugging Face id"),
        (place / "new", ("--reason", " "), "needs a reason"),
        (place / "new", (*WHY, "--set", "gate.min_gain=0"), "gate.min_gain"),
        (place / "new", (*WHY, "--set", "update.lora.target_modules=[nowhere]"), "nowhere"),
    ):
        code, _, told = cli("rebase", base, line, *words)
        assert code == 2, told
        assert said in told
    assert tip(place) == before


@pytest.mark.slow
def test_a_rebase_from_the_command_to_its_proof(place: Path, cli: Cli, tmp_path: Path) -> None:
    line = place / "line"
    code, printed, said = cli("rebase", place / "new", line, *WHY, "--no-promote", "--set", "update.steps=3")
    assert code == 0, said
    assert "waits before its promotion" in printed
    run = printed.split()[1]
    code, printed, said = cli("night", line, "--run", run)
    assert code == 0, said
    assert "v2" in printed
    document = json.loads(cli("lineage", "v2", "--dir", line, "--json")[1])
    assert document["rebase"]["after"] == document["base"]
    assert document["replay"]["examples"] > 0
    assert (line / "state/base/unet/config.json").read_bytes() == (place / "new/unet/config.json").read_bytes()
    code, printed, said = cli("verify", "--all", "--dir", line)
    assert code == 0, printed + said
    assert "signatures checked; all as it should be" in printed
    assert "equal, bit for bit" in cli("reproduce", "v2", "--dir", line)[1]
    assert cli("export", "v2", tmp_path / "out", "--dir", line)[0] == 0
    assert json.loads((tmp_path / "out/vae/config.json").read_text())["latent_channels"] == 8
    assert cli("sample", "a hand", "--dir", line, "--count", 1, "--out", tmp_path / "s.png")[0] == 0
    assert "a new base, by" in (line / "reports/night.html").read_text()
    assert cli("rollback", "v1", *WHY, "--dir", line)[0] == 0
    code, _, said = cli("rebase", place / "base", line, *WHY)
    assert "on this base already" in said
