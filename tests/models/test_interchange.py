"""LoRA files of other tools: what is read computes what it computed there, and what is written has the names that are
looked for.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import convert_state_dict_to_kohya
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cl_steps.config import Lora
from cl_steps.errors import UsageError
from cl_steps.models.adapters import Adapters
from cl_steps.models.interchange import read_foreign, write_comfyui
from cl_steps.models.lora import Adapter, read_adapter, write_adapter
from cl_steps.models.model import Denoiser
from tests.tiny import disturb

ATTENTION = ("to_k", "to_out.0", "to_q", "to_v")


@pytest.fixture
def saved(denoiser: Denoiser, lora: Lora, tmp_path: Path) -> Path:
    denoiser.adapters.add_fresh("default", lora, seed=0)
    disturb(denoiser, "default")
    return denoiser.adapters.save("default", tmp_path / "ours")


def networks(denoiser: Denoiser) -> dict[str, nn.Module]:
    return {"unet": denoiser.pipeline.unet}


def read(file: Path, denoiser: Denoiser) -> Adapter:
    return read_foreign(file, denoiser.pipeline, networks(denoiser))


def deltas(adapter: Adapter) -> dict[str, Tensor]:
    """s B A of each layer."""
    found, scale = {}, adapter.lora.alpha / adapter.lora.rank
    for key, down in adapter.weights.items():
        if ".lora_A." in key:
            up = adapter.weights[key.replace(".lora_A.", ".lora_B.")]
            found[key.replace(".lora_A.weight", "")] = scale * up.flatten(1) @ down.flatten(1)
    return found


def assert_same(one: Adapter, other: Adapter) -> None:
    ours, theirs = deltas(one), deltas(other)
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], atol=1e-6, rtol=1e-5)


def assert_loads(adapter: Adapter, there: dict[str, nn.Module], folder: Path) -> None:
    """It is one that a line can begin with."""
    adapters = Adapters(there)
    adapters.load("default", write_adapter(folder, adapter))
    assert adapters.shape("default") == adapter.lora


def test_what_is_written_for_comfyui_is_read_back_bit_for_bit(saved: Path, denoiser: Denoiser, tmp_path: Path) -> None:
    ours = read_adapter(saved)
    found = read(write_comfyui(tmp_path / "kohya.safetensors", ours, "UNet2DConditionModel"), denoiser)
    assert found.weights.keys() == ours.weights.keys()
    assert all(torch.equal(found.weights[key], value) for key, value in ours.weights.items())
    assert (found.lora.rank, found.lora.alpha) == (ours.lora.rank, ours.lora.alpha)
    assert_loads(found, networks(denoiser), tmp_path)


def test_a_unets_keys_are_kohyas(saved: Path, tmp_path: Path) -> None:
    """Three witnesses.

    diffusers' `convert_state_dict_to_kohya`. ComfyUI (comfy/lora.py, `model_lora_keys_unet`): `lora_unet_` and the name
    of the layer in diffusers, its dots as underscores; then `.lora_down.weight`, `.lora_up.weight`
    (comfy/weight_adapter/lora.py) and `.alpha` (`load_lora`). A1111 (extensions-builtin/Lora/networks.py,
    `convert_diffusers_name_to_compvis`): what begins with `lora_unet_down_blocks_<i>_attentions_<j>_` or
    `_resnets_<j>_` and the like is a layer of `input_blocks_<1 + 3 i + j>`, and what follows the first dot is the part.
    """
    adapter = read_adapter(saved)
    written = load_file(write_comfyui(tmp_path / "kohya.safetensors", adapter, "UNet2DConditionModel"))
    theirs = convert_state_dict_to_kohya(load_file(saved))
    assert written.keys() == theirs.keys()
    for key, value in written.items():
        assert torch.equal(value, theirs[key] if not key.endswith(".alpha") else torch.tensor(6.0))
    one = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"
    assert {f"{one}.{part}" for part in ("lora_down.weight", "lora_up.weight", "alpha")} < written.keys()
    assert "lora_unet_up_blocks_1_resnets_0_conv1.lora_down.weight" in written


def test_a_transformers_keys_are_those_that_comfyui_knows(tmp_path: Path) -> None:
    """comfy/lora.py, `model_lora_keys_unet`: for SD3, AuraFlow, PixArt, Flux, QwenImage and Lumina2 (Z-Image) the key
    is `transformer.` and diffusers' name of the layer; for LTXV, whose layers have the same names, `diffusion_model.`;
    comfy/weight_adapter/lora.py takes `.lora_A.weight` and `.lora_B.weight`, `load_lora` takes `.alpha`.
    """
    weights = {f"transformer.blocks.0.to_q.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}
    adapter = Adapter(Lora(rank=2, alpha=4, target_modules=("to_q",)), weights)
    for kind, prefix in (
        ("FluxTransformer2DModel", "transformer"),
        ("LTXVideoTransformer3DModel", "diffusion_model"),
    ):
        written = load_file(write_comfyui(tmp_path / "lora.safetensors", adapter, kind))
        stem = f"{prefix}.blocks.0.to_q"
        assert set(written) == {f"{stem}.lora_A.weight", f"{stem}.lora_B.weight", f"{stem}.alpha"}
        assert float(written[f"{stem}.alpha"]) == 4
    with pytest.raises(UsageError, match="knows no layers of a WanTransformer3DModel"):
        write_comfyui(tmp_path / "lora.safetensors", adapter, "WanTransformer3DModel")


@pytest.mark.parametrize("has_metadata", [True, False])
def test_what_diffusers_saves_is_read_with_its_alpha(
    base: Path, denoiser: Denoiser, tmp_path: Path, has_metadata: bool
) -> None:
    unet = StableDiffusionPipeline.from_pretrained(base, local_files_only=True, safety_checker=None).unet
    config = LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules=list(ATTENTION))
    unet.add_adapter(config)
    metadata = {"unet_lora_adapter_metadata": config.to_dict()} if has_metadata else {}
    layers = get_peft_model_state_dict(unet)
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers, **metadata)
    found = read(tmp_path / "pytorch_lora_weights.safetensors", denoiser)
    assert found.lora == Lora(rank=4, alpha=8 if has_metadata else 4, target_modules=ATTENTION)
    assert all(torch.equal(found.weights[f"unet.{key}"], value) for key, value in layers.items())


def test_pefts_own_folder_is_read(denoiser: Denoiser, saved: Path, tmp_path: Path) -> None:
    tensors = {key.replace("unet.", "base_model.model.", 1): value for key, value in load_file(saved).items()}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 6, "peft_type": "LORA"}))
    assert_same(read(tmp_path / "adapter_model.safetensors", denoiser), read_adapter(saved))


def test_ranks_and_alphas_that_differ_are_made_one_and_the_function_stays(denoiser: Denoiser, tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    stems = {
        f"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_{letter}": (rank, alpha)
        for letter, rank, alpha in (("q", 2, 4.0), ("k", 3, 1.0), ("v", 4, 0.5))
    }
    tensors, expected = {}, {}
    for stem, (rank, alpha) in stems.items():
        down, up = torch.randn(rank, 8, generator=random), torch.randn(8, rank, generator=random)
        tensors |= {
            f"{stem}.lora_down.weight": down,
            f"{stem}.lora_up.weight": up,
            f"{stem}.alpha": torch.tensor(alpha),
        }
        expected[stem[-4:]] = alpha / rank * up @ down
    save_file(tensors, tmp_path / "mixed.safetensors")
    found = read(tmp_path / "mixed.safetensors", denoiser)
    assert (found.lora.rank, found.lora.alpha) == (4, 4)
    assert found.lora.target_modules == tuple(
        f"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_{letter}" for letter in "kqv"
    )
    for key, value in deltas(found).items():
        torch.testing.assert_close(value, expected[key[-4:]], atol=1e-6, rtol=1e-5)
    downs = [value for key, value in found.weights.items() if ".lora_A." in key]
    assert all(row.abs().max() > 0 for down in downs for row in down), "each row can learn"
    assert_loads(found, networks(denoiser), tmp_path)


def sdxl() -> UNet2DConditionModel:
    """The blocks of SDXL's UNet, their widths tiny."""
    return UNet2DConditionModel(
        block_out_channels=(4, 8, 8), layers_per_block=2, norm_num_groups=2, cross_attention_dim=8,
        attention_head_dim=2, transformer_layers_per_block=(1, 2, 3), use_linear_projection=True,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def test_kohyas_sdxl_has_the_original_blocks(tmp_path: Path) -> None:
    """ComfyUI's comfy/utils.py, `unet_to_diffusers`: which block of the original is which of diffusers'."""
    same = {
        "input_blocks_4_1": "down_blocks.1.attentions.0",
        "input_blocks_8_1": "down_blocks.2.attentions.1",
        "middle_block_1": "mid_block.attentions.0",
        "output_blocks_2_1": "up_blocks.0.attentions.2",
        "output_blocks_4_1": "up_blocks.1.attentions.1",
    }
    random, tensors, expected = torch.Generator().manual_seed(0), {}, {}
    for theirs, ours in same.items():
        down, up = torch.randn(2, 8, generator=random), torch.randn(8, 2, generator=random)
        stem = f"lora_unet_{theirs}_transformer_blocks_1_attn2_to_k"
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(1.0)}
        expected[f"unet.{ours}.transformer_blocks.1.attn2.to_k"] = 0.5 * up @ down
    save_file(tensors, tmp_path / "kohya.safetensors")
    unet = sdxl()
    pipeline = SimpleNamespace(lora_state_dict=StableDiffusionXLPipeline.lora_state_dict, unet=unet)
    found = read_foreign(tmp_path / "kohya.safetensors", pipeline, {"unet": unet})
    assert (found.lora.rank, found.lora.alpha) == (2, 1)
    assert deltas(found).keys() == expected.keys()
    for key, value in deltas(found).items():
        torch.testing.assert_close(value, expected[key])
    assert_loads(found, {"unet": unet}, tmp_path)


def flux() -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip


FLUX = SimpleNamespace(lora_state_dict=FluxPipeline.lora_state_dict)


def test_kohyas_flux_has_one_layer_where_diffusers_has_three(tmp_path: Path) -> None:
    random, stem = torch.Generator().manual_seed(0), "lora_unet_double_blocks_0_img_attn_qkv"
    down, up = torch.randn(2, 16, generator=random), torch.randn(48, 2, generator=random)
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(4.0)}
    save_file(tensors, tmp_path / "kohya.safetensors")
    found = read_foreign(tmp_path / "kohya.safetensors", FLUX, {"transformer": flux()})
    assert (found.lora.rank, found.lora.alpha) == (2, 4)
    block = "transformer.transformer_blocks.0.attn"
    for name, rows in zip(("to_q", "to_k", "to_v"), (2 * up @ down).split(16), strict=True):
        torch.testing.assert_close(deltas(found)[f"{block}.{name}"], rows)


@pytest.mark.parametrize("form", ["transformer.{}.lora_{}.weight", "lora_transformer_{}.lora_{}.weight"])
def test_flux_for_comfyui_is_read(tmp_path: Path, form: str) -> None:
    layer, sides = "transformer_blocks.0.attn.to_add_out", ("A", "B")
    if "lora_transformer" in form:
        layer, sides = layer.replace(".", "_"), ("down", "up")
    weights = {form.format(layer, side): torch.ones(2, 16) if side in "Adown" else torch.ones(16, 2) for side in sides}
    alpha = form.format(layer, "").replace(".lora_.weight", ".alpha")
    save_file(weights | {alpha: torch.tensor(6.0)}, tmp_path / "comfyui.safetensors")
    found = read_foreign(tmp_path / "comfyui.safetensors", FLUX, {"transformer": flux()})
    assert found.lora == Lora(rank=2, alpha=6, target_modules=("to_add_out",))


SIGNS = {
    "DoRA": "lora_unet_conv_in.dora_scale",
    "LoKr": "lora_unet_conv_in.lokr_w1",
    "LoHa": "lora_unet_conv_in.hada_w1_a",
    "LoCon with a middle matrix": "lora_unet_conv_in.lora_mid.weight",
    "differences of weights": "lora_unet_conv_in.diff",
}


@pytest.mark.parametrize("kind", SIGNS)
def test_other_kinds_than_lora_are_refused_by_name(denoiser: Denoiser, tmp_path: Path, kind: str) -> None:
    save_file({SIGNS[kind]: torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match=f"is {kind}, and only plain LoRA"):
        read(tmp_path / "other.safetensors", denoiser)


def test_dora_is_refused_by_its_configuration_too(denoiser: Denoiser, saved: Path, tmp_path: Path) -> None:
    (saved.parent / "adapter_config.json").write_text(json.dumps({"use_dora": True}))
    with pytest.raises(UsageError, match="is DoRA"):
        read(saved, denoiser)


@pytest.mark.parametrize("name", ["lora.pt", "lora.bin", "lora.safetensors", "absent.safetensors"])
def test_pickles_and_what_is_no_file_are_refused(denoiser: Denoiser, tmp_path: Path, name: str) -> None:
    if name != "absent.safetensors":
        torch.save({"lora_unet_conv_in.alpha": torch.ones(1)}, tmp_path / name)
    with pytest.raises(UsageError, match="is no safetensors file"):
        read(tmp_path / name, denoiser)


def test_what_is_for_text_encoders_is_left_out_and_said(
    denoiser: Denoiser, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = {
        f"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_{side}.weight": torch.ones(1, 1) for side in ("up", "down")
    }
    ours = write_comfyui(tmp_path / "kohya.safetensors", read_adapter(saved), "UNet2DConditionModel")
    save_file(load_file(ours) | text, tmp_path / "both.safetensors")
    assert_same(read(tmp_path / "both.safetensors", denoiser), read_adapter(saved))
    assert "2 tensors for text encoders are left out" in capsys.readouterr().err


def test_a_lora_for_another_base_is_refused(denoiser: Denoiser, saved: Path, tmp_path: Path) -> None:
    named = {
        "double_blocks.0.nowhere.lora_A.weight": torch.ones(1, 1),
        "double_blocks.0.nowhere.lora_B.weight": torch.ones(1, 1),
    }
    save_file(named, tmp_path / "foreign.safetensors")
    with pytest.raises(UsageError, match="is no LoRA for this base: 2 of its tensors have no layer"):
        read(tmp_path / "foreign.safetensors", denoiser)
    wide = {
        key: torch.cat([value, value], dim=1) if ".lora_A." in key else value for key, value in load_file(saved).items()
    }
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(UsageError, match=r"base: .*proj_in\.lora_A\.weight is \(2, 16, 1, 1\) and not \(2, 8"):
        read(tmp_path / "wide.safetensors", denoiser)


def test_layers_that_no_ends_of_names_tell_apart_are_refused(tmp_path: Path) -> None:
    """`proj_out` is also how the names of the single blocks' last layers end."""
    weights = {
        f"transformer.proj_out.lora_{side}.weight": torch.ones(shape) for side, shape in (("A", (1, 16)), ("B", (4, 1)))
    }
    save_file(weights, tmp_path / "last.safetensors")
    with pytest.raises(UsageError, match="sits on layers that cannot be named without others"):
        read_foreign(tmp_path / "last.safetensors", FLUX, {"transformer": flux()})
