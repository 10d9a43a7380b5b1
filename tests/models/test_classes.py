"""A network of classes is a base like any other: seen by its call, drawn by diffusers' own loop, learnt and served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from PIL import Image

from cl_steps.config import Compute, Lora, Serving
from cl_steps.errors import UsageError
from cl_steps.models.classes import ClassPipeline
from cl_steps.models.loading import load_pipeline
from cl_steps.models.model import Denoiser, open_denoiser
from cl_steps.models.proof import prove

SERVING = Serving(num_inference_steps=3)


def make_class_pipeline(folder: Path, channels: int = 1, classes: int | None = 10) -> Path:
    """Write a DDPMPipeline folder: 16x16 pictures of digits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet2DModel(
            sample_size=16,
            in_channels=channels,
            out_channels=channels,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=4,
            num_class_embeds=classes,
        )
    DDPMPipeline(network, DDPMScheduler()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_class_pipeline(tmp_path_factory.mktemp("classes") / "base")


@pytest.fixture
def denoiser(digits: Path) -> Denoiser:
    return open_denoiser(digits, Compute(device="cpu", threads=1))


def test_a_base_is_proven_like_any_other(denoiser: Denoiser) -> None:
    said = dict(prove(denoiser, Lora(rank=2)).rows)
    assert said["pipeline"] == "ClassPipeline"
    assert said["network"] == "unet (UNet2DModel)"
    assert said["latents"] == "1 x 16 x 16"
    assert said["predicts"] == "epsilon, by DDPMScheduler"
    prove(denoiser, Lora(rank="full"))


def test_a_prediction_is_the_networks_own_for_the_class_of_the_caption(denoiser: Denoiser) -> None:
    x, t = torch.randn((3, 1, 16, 16), generator=torch.Generator().manual_seed(0)), torch.tensor([3, 500, 999])
    found = denoiser.predict(x, t, denoiser.encode_prompts(["a 3", "class 7 again", ""]), None)
    with torch.no_grad():
        expected = denoiser.pipeline.unet(x, t, torch.tensor([3, 7, 9])).sample
    assert torch.equal(found, expected)


def test_latents_are_pixels(denoiser: Denoiser, tmp_path: Path) -> None:
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    [latents] = denoiser.encode_images([grey])
    assert latents.shape == (1, 16, 16)
    torch.testing.assert_close(latents.flatten(), torch.arange(256) / 127.5 - 1)
    coloured = open_denoiser(make_class_pipeline(tmp_path, 3), Compute(device="cpu", threads=1))
    [latents] = coloured.encode_images([Image.new("RGB", (16, 16), (255, 0, 255))])
    assert latents[:, 0, 0].tolist() == [1, -1, 1]


def test_pictures_are_drawn_by_diffusers_own_scheduler(digits: Path, denoiser: Denoiser) -> None:
    [ours] = denoiser.sample(["a 4"], [11], SERVING, None)
    network, scheduler = denoiser.pipeline.unet, DDIMScheduler.from_config(denoiser.pipeline.scheduler.config)
    pipeline = ClassPipeline(network, scheduler, denoiser.pipeline.vae)
    theirs = pipeline(["4"], num_inference_steps=3, generator=torch.Generator().manual_seed(11)).images[0]
    assert ours.size == theirs.size == (16, 16)
    again = denoiser.sample(["draw 4"], [11], SERVING, None)[0]
    assert np.array_equal(np.asarray(again), np.asarray(ours))
    other = denoiser.sample(["5"], [11], SERVING, None)[0]
    assert not np.array_equal(np.asarray(other), np.asarray(ours))


@pytest.mark.parametrize("caption", ["a cat", "10", "class 999999"])
def test_captions_of_no_class_are_refused(denoiser: Denoiser, caption: str) -> None:
    with pytest.raises(UsageError, match="a caption holds a number from 0 to 9"):
        denoiser.encode_prompts([caption])


def test_a_network_that_knows_no_class_is_refused(tmp_path: Path) -> None:
    base = make_class_pipeline(tmp_path, classes=None)
    assert isinstance(load_pipeline(base), DDPMPipeline)
    with pytest.raises(UsageError, match="cannot be kept up to date"):
        open_denoiser(base, Compute(device="cpu", threads=1))
