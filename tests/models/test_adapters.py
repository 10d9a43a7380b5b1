"""Adapters against the formula, against peft through diffusers, and against the untouched base."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load, load_file
from torch import Tensor

from cl_steps.config import Lora
from cl_steps.errors import IntegrityError, UsageError
from cl_steps.models.lora import FILE_NAME, Adapter, adapter_digest, check_shape, read_adapter, write_adapter
from cl_steps.models.model import Denoiser
from cl_steps.models.tensors import tensor_bytes
from tests.tiny import TARGET_MODULES, disturb

T = torch.tensor([5, 500])


def inputs(denoiser: Denoiser) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    return x, T, denoiser.encode_prompts(["a b", "c"])


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
    pairs = zip(*(denoiser.adapters.weights(name).values() for name in ("default", "same", "other")), strict=True)
    equal = [(torch.equal(a, b), torch.equal(a, c)) for a, b, c in pairs]
    assert all(same for same, _ in equal)
    assert not all(other for _, other in equal)


def test_the_merged_weight_is_the_formula(denoiser: Denoiser, lora: Lora) -> None:
    denoiser.adapters.add_fresh("default", lora, seed=0)
    disturb(denoiser, "default")
    weights, merged = denoiser.adapters.weights("default"), denoiser.adapters.merged("default")
    base = dict(denoiser.pipeline.unet.named_parameters())
    for name, value in merged.items():
        layer = name.removesuffix(".weight")
        a, b = weights[f"{layer}.lora_A.weight"], weights[f"{layer}.lora_B.weight"]
        product = torch.tensordot(b.flatten(1), a, dims=1)
        torch.testing.assert_close(value, base[name] + 3.0 * product)
    assert any(value.ndim == 4 for value in merged.values())
    assert any(value.ndim == 2 for value in merged.values())


def test_diffusers_and_peft_load_it_and_compute_the_same(
    base: Path, denoiser: Denoiser, lora: Lora, tmp_path: Path
) -> None:
    denoiser.adapters.add_fresh("default", lora, seed=0)
    disturb(denoiser, "default")
    denoiser.adapters.save("default", tmp_path)
    pipeline = StableDiffusionPipeline.from_pretrained(base, local_files_only=True, safety_checker=None)
    pipeline.load_lora_weights(tmp_path)
    assert pipeline.unet.peft_config["default_0"].lora_alpha == lora.alpha
    x, t, embeddings = inputs(denoiser)
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


def test_the_base_is_bit_equal_after_everything(denoiser: Denoiser, lora: Lora) -> None:
    before, plain = base_bytes(denoiser), output(denoiser, None)
    for name in ("default", "teacher", "anchor-1"):
        denoiser.adapters.add_fresh(name, lora, seed=0)
        disturb(denoiser, name)
    denoiser.adapters.train("default")
    denoiser.predict(*inputs(denoiser), "default").sum().backward()
    for name in ("default", "teacher", "anchor-1", "teacher"):
        with denoiser.adapters.in_place(name):
            assert base_bytes(denoiser) != before
    with pytest.raises(KeyboardInterrupt), denoiser.adapters.in_place("teacher"):
        raise KeyboardInterrupt
    assert base_bytes(denoiser) == before
    for name in denoiser.adapters.names:
        denoiser.adapters.remove(name)
    assert denoiser.adapters.names == ()
    assert torch.equal(output(denoiser, None), plain)


def test_only_the_trained_adapter_gets_gradients_whoever_computed_in_between(denoiser: Denoiser, lora: Lora) -> None:
    for name in ("default", "teacher"):
        denoiser.adapters.add_fresh(name, lora, seed=0)
        disturb(denoiser, name)
    trained = denoiser.adapters.train("default")
    student = denoiser.predict(*inputs(denoiser), "default")
    taught = denoiser.predict(*inputs(denoiser), "teacher")
    assert not taught.requires_grad
    (student - 1).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in trained)
    others = [*denoiser.adapters.weights("teacher").values(), *denoiser.pipeline.unet.parameters()]
    assert all(parameter.grad is None for parameter in others)


def test_the_file_is_the_same_bytes_each_time(denoiser: Denoiser, lora: Lora, tmp_path: Path) -> None:
    denoiser.adapters.add_fresh("default", lora, seed=0)
    files = [denoiser.adapters.save("default", tmp_path / name) for name in "abcd"]
    assert len({file.read_bytes() for file in files}) == 1
    read = read_adapter(files[0])
    stripped = {key.removeprefix("unet."): value for key, value in load_file(files[0]).items()}
    assert write_adapter(tmp_path / "e", Adapter(read.lora, stripped)).read_bytes() == files[0].read_bytes()
    assert adapter_digest(files[0]) == hashlib.sha256(files[0].read_bytes()).hexdigest()[:16]


def test_the_header_of_a_file_is_sorted_whatever_the_hash_of_the_library() -> None:
    metadata = {letter: letter for letter in "hgfedcba"}
    written = {tensor_bytes({"b": torch.ones(2), "a": torch.zeros(3)}, metadata) for _ in range(20)}
    assert len(written) == 1
    (content,) = written
    loaded = load(content)
    assert torch.equal(loaded["b"], torch.ones(2))
    assert torch.equal(loaded["a"], torch.zeros(3))


def broken(file: Path, lora: Lora, kind: str) -> None:
    weights = {key.removeprefix("unet."): value for key, value in load_file(file).items()}
    first = next(iter(weights))
    if kind == "missing":
        del weights[first]
    elif kind == "extra":
        weights["nowhere.lora.down.weight"] = weights[first].clone()
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


def test_new_weights_count_at_once_also_where_the_old_ones_were_merged(denoiser: Denoiser, lora: Lora) -> None:
    denoiser.adapters.add_fresh("default", lora, seed=0)
    denoiser.adapters.add_fresh("other", lora, seed=0)
    x_t, t, texts = torch.ones(1, 4, 8, 8), torch.tensor([3]), denoiser.encode_prompts(["a"])
    with torch.no_grad():
        plain = denoiser.predict(x_t, t, texts, "other").clone()
        disturb(denoiser, "other")
        changed = denoiser.predict(x_t, t, texts, "other").clone()
        denoiser.adapters.put(
            "other", [torch.zeros_like(weight) for weight in denoiser.adapters.weights("other").values()]
        )
        back = denoiser.predict(x_t, t, texts, "other").clone()
    assert not torch.allclose(plain, changed)
    torch.testing.assert_close(plain, back)
