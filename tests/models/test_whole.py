"""The whole tiny pipelines: plain diffusers loads and draws them, and they read their prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import DiffusionPipeline, QwenImagePipeline

from cl_steps.config import Compute, Serving
from cl_steps.models.model import open_denoiser
from tests.models.texts import qwen_tokenizer
from tests.models.whole import WHOLE


def draw(pipeline: DiffusionPipeline, prompt: str) -> np.ndarray:
    size = {"width": 32, "height": 32} | ({"num_frames": 5} if "Wan" in type(pipeline).__name__ else {})
    seed = torch.Generator().manual_seed(0)
    return pipeline(prompt=prompt, num_inference_steps=2, output_type="np", generator=seed, **size)[0]


@pytest.mark.parametrize("name", WHOLE)
def test_plain_diffusers_draws_it(name: str, tmp_path: Path) -> None:
    WHOLE[name](tmp_path)
    pipeline = DiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    assert type(pipeline).__name__ == name
    pipeline.set_progress_bar_config(disable=True)
    one, other = draw(pipeline, "a red digit three"), draw(pipeline, "a thin violet seven on dark paper")
    assert one.std() > 0.05
    assert np.abs(one - other).max() > 0.01
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            assert 9e3 < sum(weight.numel() for weight in part.parameters()) < 5e5


@pytest.mark.parametrize("name", WHOLE)
def test_at_another_size_it_is_what_it_would_be_by_itself(name: str, tmp_path: Path) -> None:
    """So captions that were encoded at one size serve at all."""
    WHOLE[name](tmp_path)
    denoiser = open_denoiser(tmp_path, Compute(device="cpu"), Serving(width=32, height=32))
    alone = open_denoiser(tmp_path, Compute(device="cpu"), Serving(width=64, height=32))
    other = denoiser.at((64, 32))
    assert other.latent_shape == alone.latent_shape
    picture = PIL.Image.new("RGB", (64, 32), (200, 40, 90))
    assert torch.equal(other.encode_images([picture]), alone.encode_images([picture]))
    x_t, t = torch.randn((1, *other.latent_shape)), denoiser.schedule.at(torch.tensor([0.4], dtype=torch.float64))
    caption = ["a red digit three"]
    found, expected = (own.predict(x_t, t, own.encode_prompts(caption), None) for own in (other, alone))
    assert torch.equal(found, expected)
    assert [drawn.size for drawn in other.sample(caption, [0], Serving(num_inference_steps=2), None)] == [(64, 32)]


@pytest.mark.parametrize("name", WHOLE)
def test_a_folder_is_the_same_each_time(name: str, tmp_path: Path) -> None:
    for folder in ("one", "other"):
        WHOLE[name](tmp_path / folder)
    files = [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    for path in files:
        assert path.read_bytes() == (tmp_path / "other" / path.relative_to(tmp_path / "one")).read_bytes(), path


def test_a_caption_of_qwen_image_begins_where_the_pipeline_cuts() -> None:
    pipeline = QwenImagePipeline(*[None] * 5)
    before = pipeline.prompt_template_encode.partition("{}")[0]
    assert len(qwen_tokenizer()(before).input_ids) == pipeline.prompt_template_encode_start_idx
