"""A base held in 8 or 4 bits: near the full one, smaller, and an adapter learns beside it as beside the full one."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cl_steps.config import Base, Bits, Compute, Lora
from cl_steps.errors import UsageError
from cl_steps.models.adapters import fold
from cl_steps.models.loading import load_pipeline
from cl_steps.models.lora import read_adapter
from cl_steps.models.model import Denoiser, open_denoiser
from cl_steps.models.proof import prove
from cl_steps.models.quantised import quantise, stored
from tests.models.whole import WHOLE
from tests.tiny import disturb

pytest.importorskip("torchao")
BITS: tuple[Bits, ...] = get_args(Bits)
NEAR: dict[Bits, float] = {"int8": 0.02, "fp8": 0.06, "nf4": 0.15}
"""How far predictions may be from the full base's, relative to the largest."""


def opened(base: Path, bits: Base) -> Denoiser:
    return open_denoiser(base, Compute(device="cpu", threads=1, base=bits))


def predicted(denoiser: Denoiser, adapter: str | None = None) -> Tensor:
    random = torch.Generator().manual_seed(0)
    x = torch.randn((2, *denoiser.latent_shape), generator=random)
    t = denoiser.schedule.at(torch.tensor([0.3, 0.8], dtype=torch.float64))
    return denoiser.predict(x, t, denoiser.encode_prompts(["a red digit", "b"]), adapter)


def num_bytes(network: nn.Module) -> int:
    return sum(own.numel() * own.element_size() for weight in network.parameters() for own in stored(weight))


@pytest.mark.parametrize("bits", BITS)
def test_predictions_are_near_and_the_network_alone_is_smaller(base: Path, denoiser: Denoiser, bits: Bits) -> None:
    held = opened(base, bits)
    with torch.no_grad():
        full, other = predicted(denoiser), predicted(held)
    off = float((other - full).abs().max() / full.abs().max())
    assert 0 < off < NEAR[bits]
    layer = held.pipeline.unet.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2")
    assert num_bytes(layer) < 0.6 * num_bytes(denoiser.pipeline.unet.get_submodule(layer_name(held, layer)))
    for part in ("vae", "text_encoder"):
        assert num_bytes(getattr(held.pipeline, part)) == num_bytes(getattr(denoiser.pipeline, part))
    assert held.loss_space == denoiser.loss_space


def layer_name(denoiser: Denoiser, layer: nn.Module) -> str:
    return next(name for name, module in denoiser.pipeline.unet.named_modules() if module is layer)


@pytest.mark.parametrize("bits", BITS)
def test_gradients_are_near_and_an_adapter_learns(base: Path, denoiser: Denoiser, lora: Lora, bits: Bits) -> None:
    held = opened(base, bits)
    gradients = []
    for one in (denoiser, held):
        one.adapters.add_fresh("default", lora, seed=0)
        disturb(one, "default")
        flat = one.adapters.train("default")
        with one.adapters.active("default"):
            torch.autograd.backward((predicted(one, "default") - 1).square().mean())
        assert flat.grad is not None
        gradients.append(flat.grad)
    assert float(torch.cosine_similarity(gradients[0], gradients[1], dim=0)) > 0.98
    optimizer, losses = torch.optim.Adam([flat], 0.01), []
    for _ in range(20):
        optimizer.zero_grad()
        with held.adapters.active("default"):
            loss = (predicted(held, "default") - 1).square().mean()
            torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_an_adapter_that_learnt_beside_it_is_one_of_the_full_base_and_is_merged_into_that(
    base: Path, denoiser: Denoiser, lora: Lora, tmp_path: Path
) -> None:
    held = opened(base, "int8")
    for one in (denoiser, held):
        one.adapters.add_fresh("default", lora, seed=0)
        disturb(one, "default")
    files = [one.adapters.save("default", tmp_path / name) for one, name in ((denoiser, "full"), (held, "held"))]
    assert files[0].read_bytes() == files[1].read_bytes()
    denoiser.adapters.load("loaded", files[1])
    pipeline = load_pipeline(base)
    fold(read_adapter(files[1]), {"unet": pipeline.unet})
    with torch.no_grad():
        merged = predicted(Denoiser(pipeline, torch.device("cpu")))
        torch.testing.assert_close(merged, predicted(denoiser, "loaded"), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bits", BITS)
def test_it_is_proven_and_drawn_from(base: Path, lora: Lora, bits: Bits) -> None:
    """A whole proof: captions, predictions, gradients, a picture."""
    rows = dict(prove(opened(base, bits), lora).rows)
    full = dict(prove(opened(base, "full"), lora).rows)
    assert rows["network"] == full["network"]
    assert rows["parameters"].split(",")[0] == full["parameters"].split(",")[0]


@pytest.mark.parametrize("name", ["FluxPipeline", "Flux2Pipeline", "StableDiffusion3Pipeline", "QwenImagePipeline"])
def test_transformers_too(name: str, tmp_path: Path) -> None:
    WHOLE[name](tmp_path)
    with torch.no_grad():
        full, held = (predicted(opened(tmp_path, bits)) for bits in ("full", "int8"))
    assert 0 < float((held - full).abs().max() / full.abs().max()) < 0.1


def test_weights_that_are_no_numbers_are_still_seen(base: Path, tmp_path: Path, lora: Lora) -> None:
    file = shutil.copytree(base, tmp_path / "base") / "unet/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    name = "down_blocks.0.attentions.0.proj_in.weight"
    weights[name.replace("proj_in", "transformer_blocks.0.attn1.to_q")][0, 0] = float("nan")
    save_file(weights, file, {"format": "pt"})
    for bits in BITS:
        with pytest.raises(UsageError, match="its unet has weights that are no numbers"):
            prove(opened(tmp_path / "base", bits), lora)


def test_a_layer_that_four_bits_cannot_hold_stays_full() -> None:
    network = nn.Sequential(nn.Linear(64, 3), nn.Linear(5, 7), nn.Linear(64, 3), nn.Conv2d(64, 64, 1))
    nn.init.zeros_(network[2].weight)
    quantise(network.requires_grad_(False), "nf4", torch.device("cpu"))
    assert [len(stored(layer.weight)) > 1 for layer in network] == [True, False, False, False]
    assert not network[2](torch.ones(64)).isnan().any()


def test_without_torchao_the_sentence_says_what_to_install(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(UsageError, match=r"compute\.base: nf4 needs torchao: pip install 'retain\[quantised\]'"):
        opened(base, "nf4")
