"""Adapters against the formula, against peft through diffusers, and against the untouched base."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load, load_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.profiler import profile

from cl_steps.config import Lora
from cl_steps.errors import IntegrityError, UsageError
from cl_steps.models.adapters import Adapters
from cl_steps.models.captions import Conditions
from cl_steps.models.lora import FILE_NAME, Adapter, adapter_digest, check_shape, read_adapter, write_adapter
from cl_steps.models.model import Denoiser
from cl_steps.models.tensors import tensor_bytes
from tests.tiny import TARGET_MODULES, disturb

T = torch.tensor([5, 500])


def inputs(denoiser: Denoiser) -> tuple[Tensor, Tensor, list[Conditions]]:
    x = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    return x, T, denoiser.encode_prompts(["a b", "c"])


def unet_inputs(denoiser: Denoiser) -> tuple[Tensor, Tensor, Tensor]:
    """The same for the UNet itself."""
    x, t, conditions = inputs(denoiser)
    return x, t, torch.cat([own["prompt_embeds"] for own in conditions])


def output(denoiser: Denoiser, adapter: str | None) -> Tensor:
    with torch.no_grad():
        return denoiser.predict(*inputs(denoiser), adapter)


def base_bytes(denoiser: Denoiser) -> str:
    digest = hashlib.sha256()
    for key, value in denoiser.pipeline.unet.state_dict().items():
        digest.update(key.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def test_a_fresh_adapter_changes_nothing_and_its_seed_fixes_it(denoiser: Denoiser, lora: Lora) -> None:
    denoiser.adapters.add_fresh("default", lora, seed=3)
    denoiser.adapters.add_fresh("same", lora, seed=3)
    denoiser.adapters.add_fresh("other", lora, seed=4)
    assert torch.equal(output(denoiser, "default"), output(denoiser, None))
    own, same, other = (denoiser.adapters.flat(name) for name in ("default", "same", "other"))
    assert torch.equal(own, same)
    assert not torch.equal(own, other)


def test_a_layer_computes_the_formula(denoiser: Denoiser, lora: Lora) -> None:
    """W + s B A in place of W, with the product by hand."""
    denoiser.adapters.add_fresh("default", lora, seed=0)
    disturb(denoiser, "default")
    weights, unet = denoiser.adapters.weights("default"), denoiser.pipeline.unet
    found, layers = [], dict(unet.named_modules())
    for key in (key for key in weights if ".lora_A." in key):
        layer = layers[key.removeprefix("unet.").removesuffix(".lora_A.weight")]
        a, b = weights[key], weights[key.replace("_A", "_B")]
        x = torch.randn((2, 5, a.shape[1]) if a.ndim == 2 else (2, a.shape[1], 6, 6), generator=torch.Generator())
        with denoiser.adapters.active("default"), torch.no_grad():
            ours = layer(x)
        summed = layer.weight + 3.0 * torch.tensordot(b.flatten(1), a, dims=1)
        by_hand = functional_call(layer, {"weight": summed}, x)
        torch.testing.assert_close(ours, by_hand, atol=1e-5, rtol=1e-5)
        found.append(a.ndim)
    assert {2, 4} == set(found)


def test_diffusers_and_peft_load_it_and_compute_the_same(
    base: Path, denoiser: Denoiser, lora: Lora, tmp_path: Path
) -> None:
    denoiser.adapters.add_fresh("default", lora, seed=0)
    disturb(denoiser, "default")
    denoiser.adapters.save("default", tmp_path)
    pipeline = StableDiffusionPipeline.from_pretrained(base, local_files_only=True, safety_checker=None)
    pipeline.load_lora_weights(tmp_path)
    assert pipeline.unet.peft_config["default_0"].lora_alpha == lora.alpha
    x, t, embeddings = unet_inputs(denoiser)
    with torch.no_grad():
        theirs = pipeline.unet(x, t, embeddings, return_dict=False)[0]
    assert (output(denoiser, None) - theirs).abs().max() > 0.01
    torch.testing.assert_close(output(denoiser, "default"), theirs, atol=1e-5, rtol=1e-5)


def test_a_continued_adapter_starts_exactly_where_it_ended(denoiser: Denoiser, lora: Lora, tmp_path: Path) -> None:
    denoiser.adapters.add_fresh("default", lora, seed=0)
    disturb(denoiser, "default")
    denoiser.adapters.save("default", tmp_path)
    denoiser.adapters.load("teacher", tmp_path)
    assert torch.equal(output(denoiser, "default"), output(denoiser, "teacher"))
    assert denoiser.adapters.shape("teacher") == lora


def attributes(denoiser: Denoiser) -> list[tuple[str, type, set[str]]]:
    return [(name, type(module), set(vars(module))) for name, module in denoiser.pipeline.unet.named_modules()]


def test_the_base_is_bit_equal_and_untouched_after_everything(denoiser: Denoiser, lora: Lora) -> None:
    before, plain, own = base_bytes(denoiser), output(denoiser, None), attributes(denoiser)
    for name in ("default", "teacher", "anchor-1"):
        denoiser.adapters.add_fresh(name, lora, seed=0)
        disturb(denoiser, name)
    denoiser.adapters.train("default")
    denoiser.predict(*inputs(denoiser), "default").sum().backward()
    for name in ("default", "teacher", "anchor-1", "teacher"):
        with denoiser.adapters.active(name):
            assert attributes(denoiser) != own
            assert torch.equal(output(denoiser, None), plain)
            assert base_bytes(denoiser) == before
    with pytest.raises(KeyboardInterrupt), denoiser.adapters.active("teacher"):
        raise KeyboardInterrupt
    assert attributes(denoiser) == own
    for name in denoiser.adapters.names:
        denoiser.adapters.remove(name)
    assert denoiser.adapters.names == ()
    assert torch.equal(output(denoiser, None), plain)


def test_after_a_nested_adapter_the_one_before_is_back(denoiser: Denoiser, lora: Lora) -> None:
    for seed, name in enumerate(("default", "teacher")):
        denoiser.adapters.add_fresh(name, lora, seed=0)
        disturb(denoiser, name, seed)
    expected = {name: output(denoiser, name) for name in ("default", "teacher", None)}
    unet, active = denoiser.pipeline.unet, denoiser.adapters.active

    def now() -> str | None:
        with torch.no_grad():
            found = unet(*unet_inputs(denoiser), return_dict=False)[0]
        (name,) = (name for name, value in expected.items() if torch.equal(found, value))
        return name

    with active("default"):
        with active("teacher"):
            with active(None):
                assert now() is None
            with active("teacher"):
                assert now() == "teacher"
            assert now() == "teacher"
        assert now() == "default"
    assert now() is None


def test_a_forward_that_was_put_on_a_layer_is_called_and_stays(denoiser: Denoiser, lora: Lora) -> None:
    """As offloading and casting hooks do."""
    denoiser.adapters.add_fresh("default", lora, seed=0)
    disturb(denoiser, "default")
    expected = output(denoiser, "default")
    called = []
    layer = denoiser.pipeline.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q
    own = layer.forward

    def hooked(x: Tensor) -> Tensor:
        called.append(x)
        return own(x)

    layer.forward = hooked
    assert torch.equal(output(denoiser, "default"), expected)
    assert len(called) == 1
    assert vars(layer)["forward"] is hooked


def test_only_the_trained_adapter_gets_gradients_whoever_computed_in_between(denoiser: Denoiser, lora: Lora) -> None:
    for name in ("default", "teacher"):
        denoiser.adapters.add_fresh(name, lora, seed=0)
        disturb(denoiser, name)
    trained = denoiser.adapters.train("default")
    student = denoiser.predict(*inputs(denoiser), "default")
    taught = denoiser.predict(*inputs(denoiser), "teacher")
    assert not taught.requires_grad
    (student - 1).square().sum().backward()
    assert trained.grad is not None
    gradients = trained.grad.split([weight.numel() for weight in denoiser.adapters.weights("default").values()])
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    others = [denoiser.adapters.flat("teacher"), *denoiser.pipeline.unet.parameters()]
    assert all(parameter.grad is None for parameter in others)


def gradient(denoiser: Denoiser, times: int = 1) -> Tensor:
    flat = denoiser.adapters.train("default")
    flat.grad = None
    with denoiser.adapters.active("default"):
        for _ in range(times):
            (denoiser.predict(*inputs(denoiser), "default") - 1).square().mean().backward()
    assert flat.grad is not None
    return flat.grad


def test_gradients_are_those_of_peft(base: Path, denoiser: Denoiser, lora: Lora, tmp_path: Path) -> None:
    denoiser.adapters.add_fresh("default", lora, seed=0)
    disturb(denoiser, "default")
    denoiser.adapters.save("default", tmp_path)
    ours = gradient(denoiser)
    pipeline = StableDiffusionPipeline.from_pretrained(base, local_files_only=True, safety_checker=None)
    pipeline.load_lora_weights(tmp_path)
    pipeline.unet.eval()
    (pipeline.unet(*unet_inputs(denoiser), return_dict=False)[0] - 1).square().mean().backward()
    theirs = {key: value.grad for key, value in pipeline.unet.named_parameters() if "lora" in key}
    names = [
        key.removeprefix("unet.").replace(".weight", ".default_0.weight")
        for key in denoiser.adapters.weights("default")
    ]
    torch.testing.assert_close(ours, torch.cat([theirs[name].flatten() for name in names]), atol=1e-6, rtol=1e-4)


def test_gradients_add_up_and_may_be_computed_again(denoiser: Denoiser, lora: Lora) -> None:
    """A step in parts uses the same views twice; gradient checkpointing uses them in the backward pass."""
    denoiser.adapters.add_fresh("default", lora, seed=0)
    disturb(denoiser, "default")
    once = gradient(denoiser).clone()
    torch.testing.assert_close(gradient(denoiser, 2), 2 * once, atol=1e-7, rtol=1e-5)
    unet = denoiser.pipeline.unet
    unet.train().enable_gradient_checkpointing()
    torch.testing.assert_close(gradient(denoiser), once, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_in_half_precision_casts_the_adapter_once_a_pass(
    base: Path, denoiser: Denoiser, lora: Lora, dtype: torch.dtype
) -> None:
    denoiser.adapters.add_fresh("default", lora, seed=0)
    disturb(denoiser, "default")
    full = output(denoiser, "default")
    half = StableDiffusionPipeline.from_pretrained(base, local_files_only=True, safety_checker=None, dtype=dtype).unet
    half.requires_grad_(False)
    adapters = Adapters({"unet": half})
    adapters.add_fresh("default", lora, seed=0)
    adapters.put("default", denoiser.adapters.flat("default"))
    flat = adapters.train("default")
    x, t, embeddings = unet_inputs(denoiser)
    with adapters.active("default"), profile() as profiled:
        found = half(x.to(dtype), t, embeddings.to(dtype), return_dict=False)[0]
        found.float().square().mean().backward()
    assert flat.dtype == torch.float32
    assert flat.grad is not None
    assert flat.grad.dtype == torch.float32
    assert found.dtype == dtype
    assert (found.float() - full).norm() < 0.05 * full.norm()
    casts = [event for event in profiled.events() if event.name == "SplitWithSizesBackward0"]
    assert len(casts) == 1


def half_network() -> tuple[nn.Sequential, Adapters]:
    """Two layers in bfloat16 and an adapter on each, `default` and `teacher` disturbed alike."""
    network = nn.Sequential(OrderedDict(to_q=nn.Linear(6, 4), to_k=nn.Linear(4, 5))).to(torch.bfloat16)
    adapters = Adapters({"net": network.requires_grad_(False)})
    for name in ("default", "teacher"):
        adapters.add_fresh(name, Lora(rank=2, alpha=4, target_modules=("to_q", "to_k")), 0)
        adapters.put(name, torch.randn(adapters.flat(name).shape, generator=torch.Generator().manual_seed(0)))
    return network, adapters


def test_in_half_precision_new_weights_count_too_however_they_came() -> None:
    """What is cast is a copy: an optimizer changes it from the next `active` on, `put` at once."""
    network, adapters = half_network()
    flat, x = adapters.train("default"), torch.ones(1, 6, dtype=torch.bfloat16)
    optimizer = torch.optim.AdamW([flat], 0.1, fused=True)
    with adapters.active("default"):
        first = network(x)
        first.sum().backward()
    optimizer.step()
    with adapters.active("default"):
        assert not torch.equal(network(x), first)
        adapters.put("default", adapters.flat("teacher"))
        last = network(x)
    with adapters.active("teacher"):
        assert torch.equal(network(x), last)
        assert not network(x).requires_grad
    adapters.train("teacher")
    with adapters.active("default"):
        assert not network(x).requires_grad


def test_a_compiled_network_is_one_graph_for_each_adapter_and_for_the_base() -> None:
    network, adapters = half_network()
    adapters.put("teacher", 2 * adapters.flat("default"))
    x = torch.ones(1, 6, dtype=torch.bfloat16)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    for name in ("default", "teacher", None, "default"):
        with adapters.active(name):
            network(x)
            assert torch.equal(compiled(x), network(x))


class Quantised(nn.Module):
    """A layer that has sizes and a forward and no weight of its shape, as those of bitsandbytes and torchao."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.scale = layer.weight.detach().abs().max() / 127
        self.packed = (layer.weight.detach() / self.scale).round().to(torch.int8).flatten()

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.packed.view(self.out_features, -1) * self.scale).T


def test_quantised_layers_need_sizes_and_a_forward_only() -> None:
    layer = nn.Linear(6, 4, bias=False)
    adapters = Adapters({"net": nn.Sequential(OrderedDict(q=Quantised(layer), dense=layer))})
    adapters.add_fresh("default", Lora(rank=2, alpha=4, target_modules=("q",)), 0)
    adapters.put("default", torch.randn(adapters.flat("default").shape, generator=torch.Generator().manual_seed(0)))
    a, b = adapters.weights("default").values()
    quantised, x = adapters._networks["net"].q, torch.randn(3, 6)
    with adapters.active("default"):
        torch.testing.assert_close(quantised(x), Quantised(layer)(x) + 2 * x @ a.T @ b.T)


def test_several_networks_have_one_adapter(tmp_path: Path) -> None:
    networks = {name: nn.Sequential(OrderedDict(to_q=nn.Linear(3, 3))) for name in ("transformer", "transformer_2")}
    adapters = Adapters(networks)
    shape = Lora(rank=1, alpha=2, target_modules=("to_q",))
    adapters.add_fresh("default", shape, 0)
    keys = [f"transformer{number}.to_q.lora_{matrix}.weight" for number in ("", "_2") for matrix in "AB"]
    assert list(adapters.weights("default")) == keys
    adapters.put("default", torch.arange(1.0, 13.0))
    file = adapters.save("default", tmp_path)
    assert read_adapter(file).lora == shape
    adapters.load("again", file)
    assert torch.equal(adapters.flat("again"), adapters.flat("default"))
    x = torch.ones(1, 3)
    plain = [network(x) for network in networks.values()]
    with adapters.active("again"):
        changes = [network(x) - own for network, own in zip(networks.values(), plain, strict=True)]
    assert [change.flatten().tolist() for change in changes] == [
        pytest.approx([2 * 6 * b for b in (4, 5, 6)], rel=1e-4),
        pytest.approx([2 * 24 * b for b in (10, 11, 12)], rel=1e-4),
    ]


def test_the_file_is_the_same_bytes_each_time(denoiser: Denoiser, lora: Lora, tmp_path: Path) -> None:
    denoiser.adapters.add_fresh("default", lora, seed=0)
    files = [denoiser.adapters.save("default", tmp_path / name) for name in "abcd"]
    assert len({file.read_bytes() for file in files}) == 1
    read = read_adapter(files[0])
    assert write_adapter(tmp_path / "e", Adapter(read.lora, load_file(files[0]))).read_bytes() == files[0].read_bytes()
    assert adapter_digest(files[0]) == hashlib.sha256(files[0].read_bytes()).hexdigest()[:16]


def test_the_header_of_a_file_is_sorted_whatever_the_hash_of_the_library() -> None:
    metadata = {letter: letter for letter in "hgfedcba"}
    written = {tensor_bytes({"b": torch.ones(2), "a": torch.zeros(3)}, metadata) for _ in range(20)}
    assert len(written) == 1
    (content,) = written
    loaded = load(content)
    assert torch.equal(loaded["b"], torch.ones(2))
    assert torch.equal(loaded["a"], torch.zeros(3))


GOLDEN = "f88767485d9289643569bb2bc41afc2f6b1be9ee6b1cca517e24d59594630ceb"
"""SHA-256 of this file as it was written when adapters still were merged into the weights."""


def test_the_file_of_a_unet_is_what_it_always_was(denoiser: Denoiser, lora: Lora, tmp_path: Path) -> None:
    denoiser.adapters.add_fresh("default", lora, seed=0)
    assert hashlib.sha256(denoiser.adapters.save("default", tmp_path).read_bytes()).hexdigest() == GOLDEN


def broken(file: Path, lora: Lora, kind: str) -> None:
    weights = load_file(file)
    first = next(iter(weights))
    if kind == "missing":
        del weights[first]
    elif kind == "extra":
        weights["unet.nowhere.lora.down.weight"] = weights[first].clone()
    elif kind == "shape":
        weights[first] = weights[first][:1]
    write_adapter(file.parent, Adapter(lora, weights))


@pytest.mark.parametrize("kind", ["missing", "extra", "shape"])
def test_tensors_that_do_not_fit_are_refused(denoiser: Denoiser, lora: Lora, tmp_path: Path, kind: str) -> None:
    denoiser.adapters.add_fresh("default", lora, seed=0)
    broken(denoiser.adapters.save("default", tmp_path), lora, kind)
    with pytest.raises(IntegrityError, match="does not fit the base"):
        denoiser.adapters.load("champion", tmp_path)
    assert denoiser.adapters.names == ("default",)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\x80\x04pickle"])
def test_what_is_no_adapter_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(IntegrityError, match="no adapter"):
        read_adapter(tmp_path)


def test_no_file_and_unknown_layers_are_refused(denoiser: Denoiser, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="there is no"):
        read_adapter(tmp_path)
    with pytest.raises(UsageError, match="'to_z'"):
        denoiser.adapters.add_fresh("default", Lora(rank=1, alpha=1, target_modules=("to_q", "to_z")), 0)


def test_parameters_of_another_shape_are_refused_and_told_what_to_set(
    denoiser: Denoiser, lora: Lora, tmp_path: Path
) -> None:
    denoiser.adapters.add_fresh("default", lora, seed=0)
    denoiser.adapters.save("default", tmp_path)
    check_shape(tmp_path, lora)
    check_shape(tmp_path, lora.model_copy(update={"target_modules": tuple(reversed(TARGET_MODULES))}))
    with pytest.raises(UsageError, match=r"rank 2: set update\.lora\.rank to it"):
        check_shape(tmp_path, lora.model_copy(update={"rank": 4}))
    with pytest.raises(UsageError, match=r"alpha 6: set update\.lora\.alpha"):
        check_shape(tmp_path, lora.model_copy(update={"alpha": 2}))
    with pytest.raises(UsageError, match=r"target_modules to \[to_q, to_k"):
        check_shape(tmp_path, lora.model_copy(update={"target_modules": ("to_q",)}))


def test_new_weights_count_at_once(denoiser: Denoiser, lora: Lora) -> None:
    denoiser.adapters.add_fresh("default", lora, seed=0)
    denoiser.adapters.add_fresh("other", lora, seed=0)
    x_t, t, texts = torch.ones(1, 4, 8, 8), torch.tensor([3]), denoiser.encode_prompts(["a"])
    with torch.no_grad():
        plain = denoiser.predict(x_t, t, texts, "other").clone()
        disturb(denoiser, "other")
        changed = denoiser.predict(x_t, t, texts, "other").clone()
        denoiser.adapters.put("other", torch.zeros(()))
        back = denoiser.predict(x_t, t, texts, "other").clone()
    assert not torch.allclose(plain, changed)
    torch.testing.assert_close(plain, back)
