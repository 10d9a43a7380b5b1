"""A whole line on pipelines of other families: begun, a night with nothing new, one that learns, and an export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from tests.commands.conftest import SETTINGS, Cli
from tests.data.landings import fill
from tests.models.whole import WHOLE

EXTRACTOR = Path(__file__).parents[2] / "cl_steps/demo/extractor"
FAMILIES = (
    "StableDiffusionXLPipeline",
    "StableDiffusion3Pipeline",
    "FluxPipeline",
    "Flux2KleinPipeline",
    "QwenImagePipeline",
    "ZImagePipeline",
)
AUTO = (
    "--set",
    "update.lora.target_modules=auto",
    "--set",
    "update.lora.rank=2",
    "--set",
    "serving.guidance_scale=null",
    "--set",
    "serving.width=32",
    "--set",
    "serving.height=32",
)


@pytest.mark.filterwarnings("ignore:While injecting the PEFT adapters:RuntimeWarning")
@pytest.mark.parametrize("name", FAMILIES)
def test_a_line_begins_learns_and_is_exported(name: str, tmp_path: Path, cli: Cli) -> None:
    base, line = tmp_path / "base", tmp_path / "line"
    WHOLE[name](base)
    fill(tmp_path / "known", range(60))
    models = ("--base", base, "--extractor", EXTRACTOR, "--data", tmp_path / "known")
    code, _, said = cli("init", line, *models, *SETTINGS, *AUTO)
    assert code == 0, said
    assert f"pipeline    {name}" in said
    code, _, said = cli("night", line)
    assert code == 10, said
    fill(line / "landing" / "night", range(100, 130), "chalk")
    code, _, said = cli("night", line, "--set", "update.learning_rate=1e-7")
    assert code in (0, 11, 12), said
    [ran] = [run for run in json.loads(cli("runs", line, "--json")[1])["runs"] if run["drift"] == "drifted"]
    assert ran["gate"] in ("promote", "reject", "inconclusive")
    version = json.loads(cli("versions", line, "--json")[1])["champion"]
    code, _, said = cli("export", version, tmp_path / "out", "--dir", line)
    assert code == 0, said
    assert f"from diffusers import {name}" in (tmp_path / "out/README.md").read_text()
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "out", local_files_only=True)
    assert type(pipeline).__name__ == name
    pipeline.load_lora_weights(tmp_path / "out", weight_name="pytorch_lora_weights.safetensors")
    random = torch.Generator().manual_seed(0)
    drawn = pipeline(prompt="three", num_inference_steps=2, width=32, height=32, generator=random).images[0]
    assert np.asarray(drawn).std() > 0
