"""The shipped models load with plain loaders, hold nothing but data, and do what the demonstration needs of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import AutoProcessor, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from cl_steps.demo.drawing import BASE_STYLES, HELD_OUT, STYLES, draw
from tests.demo.judge import BASE, EXTRACTOR, Judge, held_out_pictures, sample

HARMLESS = {".safetensors", ".json", ".txt", ".md"}
LARGEST_BYTES = {BASE: 4_000_000, EXTRACTOR: 2_000_000}
SAMPLES_PER_STYLE = 10


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    loaded = StableDiffusionPipeline.from_pretrained(BASE)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.mark.parametrize("folder", [BASE, EXTRACTOR], ids=["base", "extractor"])
def test_folders_hold_data_only_and_little(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= HARMLESS
    assert sum(path.stat().st_size for path in files) < LARGEST_BYTES[folder]
    for path in files:
        if path.suffix == ".json":
            assert not any(place in path.read_text() for place in ("/tmp", "/work", "/home")), path


def test_the_base_loads_in_32_bits(pipeline: StableDiffusionPipeline) -> None:
    assert {part.dtype for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder)} == {torch.float32}
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.safety_checker is None


def test_the_extractor_loads_in_32_bits_and_processes_pictures_without_torchvision(judge: Judge) -> None:
    assert CLIPModel.from_pretrained(EXTRACTOR).dtype == torch.float32
    picture = draw(int(HELD_OUT[0]), "neon-ink", np.random.default_rng(0))
    text = "a handwritten three in neon ink"
    both = AutoProcessor.from_pretrained(EXTRACTOR)(text=[text], images=[picture], return_tensors="pt")
    alone = CLIPImageProcessorPil.from_pretrained(EXTRACTOR)(picture, return_tensors="pt").pixel_values
    expected = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255 * 2 - 1
    torch.testing.assert_close(alone, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(both["pixel_values"], expected, atol=1e-5, rtol=0)
    assert CLIPTokenizer.from_pretrained(EXTRACTOR)(text).input_ids == both["input_ids"][0].tolist()


@pytest.mark.parametrize("style", STYLES)
def test_the_extractor_finds_the_caption_of_held_out_drawings(judge: Judge, style: str) -> None:
    pictures, digits = held_out_pictures(style, 200, np.random.default_rng(11))
    assert judge.verdict(pictures).share_right(digits, style) >= 0.9


def test_noise_agrees_with_no_caption(judge: Judge) -> None:
    rng = np.random.default_rng(12)
    noise = rng.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    drawings, digits = held_out_pictures("black-ink", 50, rng)
    rows = list(STYLES).index("black-ink") * 10 + digits
    agreement = (judge.look_at(drawings) @ judge.captions.T).numpy()[np.arange(50), rows]
    assert (judge.look_at(noise) @ judge.captions.T).amax() < np.quantile(agreement, 0.05)


def test_the_base_draws_what_is_asked(judge: Judge, pipeline: StableDiffusionPipeline) -> None:
    shares = []
    for style in BASE_STYLES:
        pictures, digits = sample(pipeline, style, SAMPLES_PER_STYLE, steps=10, seed=5)
        shares.append(judge.verdict(pictures).share_right(digits, style))
    assert np.mean(shares) >= 0.85


def test_the_base_does_not_know_the_styles_to_come(judge: Judge, pipeline: StableDiffusionPipeline) -> None:
    for style in STYLES:
        if style not in BASE_STYLES:
            pictures, digits = sample(pipeline, style, SAMPLES_PER_STYLE, steps=10, seed=5)
            assert (
                judge.verdict(pictures).shares(digits, style)[1] <= 0.4
            )  # it draws any colours, some by chance like these


def test_the_configuration_names_a_plain_pipeline() -> None:
    index = json.loads((BASE / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
