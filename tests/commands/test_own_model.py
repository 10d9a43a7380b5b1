"""A user's own pipeline and feature model, with no data of what it knows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cl_steps.config import Compute, Lora, load_params
from cl_steps.models.lora import read_adapter
from cl_steps.models.model import open_denoiser
from tests.commands.conftest import SETTINGS, Cli
from tests.data.landings import encoded, fill, jsonl, picture, put
from tests.tiny import disturb, make_tiny_clip, make_tiny_pipeline


def test_own_models_without_data_begin_with_the_bases_own_samples(tmp_path: Path, cli: Cli) -> None:
    make_tiny_pipeline(tmp_path / "base")
    make_tiny_clip(tmp_path / "clip")
    models = ("--base", tmp_path / "base", "--extractor", tmp_path / "clip")
    command = [sys.executable, "-m", "cl_steps", "init", tmp_path / "line", *models, *SETTINGS]
    words = {name: word for name, word in os.environ.items() if not name.endswith("_VERBOSITY")}
    said = subprocess.run(command, capture_output=True, text=True, env=words, check=True).stderr
    assert all(line.startswith("init: ") for line in said.splitlines()), (
        f"libraries warn of what nobody can help: {said}"
    )
    code, printed, _ = cli("versions", tmp_path / "line", "--json")
    assert list(json.loads(printed)["versions"][0]["slices"]) == ["general"]
    names = [f"{number}.png" for number in range(40)]
    for number, name in enumerate(names):
        put(tmp_path / "line" / "landing", name, encoded(picture(number)))
    jsonl(tmp_path / "line" / "landing", *({"file_name": name, "text": f"picture {name}"} for name in names))
    code, printed, said = cli("night", tmp_path / "line", "--until", "update")
    assert code == 0, said
    assert "first data of slice general" in said


def test_a_line_goes_on_from_a_lora(tmp_path: Path, cli: Cli) -> None:
    base = make_tiny_pipeline(tmp_path / "base")
    denoiser = open_denoiser(base, Compute(device="cpu", threads=1))
    denoiser.adapters.add_fresh("default", Lora(rank=3, alpha=6, target_modules=("to_q", "to_v")), seed=0)
    disturb(denoiser, "default")
    file = denoiser.adapters.save("default", tmp_path / "lora")
    make_tiny_clip(tmp_path / "clip")
    known = fill(tmp_path / "known", range(12))
    models = ("--base", base, "--extractor", tmp_path / "clip", "--data", known, "--adapter", file)
    code, _, said = cli("init", tmp_path / "line", *models, *SETTINGS)
    assert code == 0, said
    lora = load_params(tmp_path / "line").update.lora
    assert (lora.rank, lora.alpha, lora.target_modules) == (3, 6, ("to_q", "to_v"))
    begun = read_adapter(tmp_path / "line/state/adapter")
    expected = denoiser.adapters.weights("default")
    assert begun.weights.keys() == expected.keys()
    assert all(torch.equal(begun.weights[name], expected[name]) for name in expected)
    (tmp_path / "pickle.bin").write_bytes(b"no")
    code, _, said = cli("init", tmp_path / "other", *models[:-1], tmp_path / "pickle.bin", *SETTINGS)
    assert code == 2, said
    assert not (tmp_path / "other").exists()


def test_a_line_begins_from_one_file_and_a_pipeline_like_it(tmp_path: Path, cli: Cli) -> None:
    base = make_tiny_pipeline(tmp_path / "base")
    make_tiny_clip(tmp_path / "clip")
    weights = load_file(base / "unet/diffusion_pytorch_model.safetensors")
    save_file({key: value * 1.5 for key, value in weights.items()}, tmp_path / "model.safetensors")
    models = ("--base", tmp_path / "model.safetensors", "--like", base, "--extractor", tmp_path / "clip")
    code, _, said = cli("init", tmp_path / "line", *models, "--data", fill(tmp_path / "known", range(12)), *SETTINGS)
    assert code == 0, said
    kept = load_file(tmp_path / "line/state/base/unet/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(kept[key], value * 1.5) for key, value in weights.items())
    again = (tmp_path / "model.safetensors", tmp_path / "line", "--like", base, "--reason", "again")
    code, _, said = cli("rebase", *again)
    assert (code, "on this base already" in said) == (2, True), said
    code, _, said = cli("rebase", tmp_path / "model.ckpt", tmp_path / "line", "--reason", "another")
    assert (code, "is a pickle" in said) == (2, True), said
