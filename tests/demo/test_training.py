"""Training runs, writes folders that load, and follows from its seed. A handful of steps, no quality."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPModel

from cl_steps.demo import train_denoiser, train_vae
from cl_steps.demo import train_extractor as train_extractor_module
from cl_steps.demo.drawing import TRAIN
from cl_steps.demo.networks import build_vae
from cl_steps.demo.optimise import Plan, fit, rate_at
from cl_steps.demo.train import BaseEffort, ExtractorEffort, train_base, train_extractor


@pytest.fixture(autouse=True)
def few_strokes(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (train_vae, train_denoiser, train_extractor_module):
        monkeypatch.setattr(module, "TRAIN", TRAIN[:30])


def test_the_base_trains_and_loads(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    train_base(tmp_path, 0, BaseEffort(vae_steps=2, denoiser_steps=2, copies=1))
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path)
    assert pipeline.unet.dtype == pipeline.text_encoder.dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), before)


def test_the_extractor_trains_loads_and_follows_from_its_seed(tmp_path: Path) -> None:
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        train_extractor(tmp_path / name, seed, ExtractorEffort(steps=2, copies=1))
    first, again, other = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "again", "other"))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    assert CLIPModel.from_pretrained(tmp_path / "first").dtype == torch.float32


def test_an_untrained_autoencoder_already_carries_colours() -> None:
    torch.manual_seed(0)
    vae = build_vae().eval()
    dark, light = torch.full((1, 3, 32, 32), -0.8), torch.full((1, 3, 32, 32), 0.8)
    with torch.no_grad():
        spread = (vae.encode(light).latent_dist.mean - vae.encode(dark).latent_dist.mean).abs().max()
    assert spread > 0.1


def test_the_rate_warms_up_and_falls() -> None:
    plan = Plan(steps=1000, peak_rate=2.0)
    assert rate_at(0, plan) == pytest.approx(2.0 / 50)
    assert rate_at(49, plan) == pytest.approx(2.0, rel=0.01)
    assert rate_at(999, plan) == pytest.approx(0.02, rel=0.01)
    assert max(rate_at(step, plan) for step in range(1000)) <= 2.0


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_fit_minimises(average: float) -> None:
    weight = nn.Parameter(torch.tensor([3.0]))
    fit([weight], lambda _: (weight - 1).square().sum(), Plan(300, 0.1, average, weight_decay=0), "test")
    assert weight.item() == pytest.approx(1.0, abs=0.05)
