"""Ways in which a network lies in memory: what it predicts and what an adapter learns stays the same, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from cl_steps.config import Compute, Lora
from cl_steps.errors import UsageError
from cl_steps.models import placing
from cl_steps.models.model import Denoiser, open_denoiser
from cl_steps.models.placing import Streamed, offload, weights
from tests.models.whole import WHOLE
from tests.tiny import disturb, make_tiny_pipeline

CPU = torch.device("cpu")
KINDS = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "FluxPipeline", "QwenImagePipeline")


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param in WHOLE:
        WHOLE[request.param](tmp_path)
        return tmp_path
    return make_tiny_pipeline(tmp_path)


def opened(base: Path, **compute: Any) -> Denoiser:
    return open_denoiser(base, Compute(device="cpu", threads=1, **compute))


def network_of(denoiser: Denoiser) -> nn.Module:
    [network] = denoiser.family.watcher.networks.values()
    return network


def learnt(denoiser: Denoiser) -> tuple[Tensor, Tensor, int]:
    """The prediction with an adapter, the adapter's gradient, and how many bytes were kept for the backward pass."""
    denoiser.adapters.add_fresh("default", Lora(rank=2, alpha=4), seed=0)
    disturb(denoiser, "default")
    flat = denoiser.adapters.train("default")
    x = torch.randn((2, *denoiser.latent_shape), generator=torch.Generator().manual_seed(0))
    t = denoiser.schedule.at(torch.tensor([0.3, 0.8], dtype=torch.float64))
    rows, kept = denoiser.encode_prompts(["a red digit", "b"]), {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with denoiser.adapters.active("default"):
        denoiser.predict(x, t, rows, "default")  # the shape is recorded
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = denoiser.predict(x, t, rows, "default")
        torch.autograd.backward(output.square().mean())
    assert flat.grad is not None
    return output.detach(), flat.grad.clone(), sum(kept.values())


def test_blocks_that_are_computed_again_give_the_same_gradient_and_keep_less(folder: Path) -> None:
    output, gradient, kept = learnt(opened(folder))
    again, its_gradient, its_kept = learnt(opened(folder, checkpointing=True))
    assert torch.equal(output, again)
    assert torch.equal(gradient, its_gradient)
    assert bool(gradient.any())
    assert its_kept < 0.8 * kept


def test_weights_that_are_brought_when_they_are_used_give_the_same_gradient(folder: Path) -> None:
    plain, away = opened(folder), opened(folder)
    before = {name: weight.clone() for name, weight in weights(network_of(away))}
    offload(network_of(away), CPU)
    streamed = [module for module in network_of(away).modules() if isinstance(module.__dict__.get("forward"), Streamed)]
    assert len(streamed) > 10
    assert not any("weight" in dict(module.named_parameters()) for module in streamed)
    after = dict(weights(network_of(away)))
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    (output, gradient, _), (again, its_gradient, _) = learnt(plain), learnt(away)
    assert torch.equal(output, again)
    torch.testing.assert_close(its_gradient, gradient, rtol=1e-5, atol=1e-7)


def test_what_moves_the_network_leaves_its_weights_away_and_nothing_keeps_them(denoiser: Denoiser, lora: Lora) -> None:
    network = network_of(denoiser)
    offload(network, CPU)
    moved = network.to(torch.float64)
    layer = moved.get_submodule("down_blocks.0.attentions.0.proj_in")
    assert (layer.weight.dtype, layer.bias.dtype) == (torch.float32, torch.float64)


@pytest.fixture
def _eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is compiled runs as it was seen; nothing is kept of it for other tests."""
    monkeypatch.setattr(placing, "BACKEND", "eager")
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_eager")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch hides it, and pytest makes it an error
@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "FluxPipeline"])
def test_compiled_blocks_give_the_same_and_are_compiled_once_whatever_the_adapter(name: str, tmp_path: Path) -> None:
    WHOLE.get(name, make_tiny_pipeline)(tmp_path)
    plain, compiled = opened(tmp_path), opened(tmp_path, compile=True, checkpointing=True)
    (output, gradient, _), (again, its_gradient, _) = learnt(plain), learnt(compiled)
    torch.testing.assert_close(again, output, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(its_gradient, gradient, rtol=1e-4, atol=1e-6)
    graphs = [0]
    for number in range(3):
        compiled.adapters.add_fresh(f"other {number}", Lora(rank=2, alpha=4), seed=number)
        x, t = torch.ones((2, *compiled.latent_shape)), compiled.schedule.at(torch.tensor([0.3, 0.8]).double())
        with torch.no_grad():
            compiled.predict(x, t, compiled.encode_prompts(["a red digit", "b"]), f"other {number}")
        graphs.append(counters["stats"]["unique_graphs"])
    assert 0 < graphs[1] == graphs[2] == graphs[3]


def test_a_network_without_blocks_to_compile_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusers.UNet2DConditionModel._repeated_blocks", None)
    with pytest.raises(
        UsageError, match=r"no UNet2DConditionModel names blocks to compile: set compute\.compile to false"
    ):
        opened(base, compile=True)


def test_offloading_has_no_say_without_a_gpu(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = opened(folder, offload=True)
    assert "compute.offload has no say here" in capsys.readouterr().err
    assert not any(isinstance(module.__dict__.get("forward"), Streamed) for module in network_of(found).modules())


def test_a_network_that_cannot_compute_again_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusers.UNet2DConditionModel._supports_gradient_checkpointing", False)
    with pytest.raises(UsageError, match=r"no UNet2DConditionModel can compute blocks again: set compute\.checkpoint"):
        opened(base, checkpointing=True)
