"""Which layers `auto` takes, and how layers are named by their ends."""

from __future__ import annotations

from collections import OrderedDict
from itertools import product

import pytest
import torch
from diffusers import FluxTransformer2DModel, Kandinsky5Transformer3DModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from cl_steps.errors import UsageError
from cl_steps.models.model import Denoiser
from cl_steps.models.targets import adaptable, attention_targets, endings, find_layers


def test_of_a_unet_it_is_what_params_begin_with(denoiser: Denoiser) -> None:
    assert attention_targets({"unet": denoiser.pipeline.unet}) == ("to_k", "to_out.0", "to_q", "to_v")


def test_of_flux_both_streams_and_neither_mlp_nor_modulation() -> None:
    flux = FluxTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    names = ("add_k_proj", "add_q_proj", "add_v_proj", "to_add_out", "to_k", "to_out.0", "to_q", "to_v")
    assert attention_targets({"transformer": flux}) == names


def test_what_would_also_end_others_is_named_with_its_attention() -> None:
    kandinsky = Kandinsky5Transformer3DModel(
        in_visual_dim=4, in_text_dim=8, in_text_dim2=8, time_dim=8, out_visual_dim=4, model_dim=16, ff_dim=16,
        num_text_blocks=1, num_visual_blocks=1, axes_dims=(4, 2, 2),
    )  # fmt: skip
    found = attention_targets({"transformer": kandinsky})
    assert found == ("cross_attention.out_layer", "self_attention.out_layer", "to_key", "to_query", "to_value")
    assert "transformer.out_layer.out_layer" not in find_layers({"transformer": kandinsky}, found)


def test_of_a_text_encoder_of_transformers() -> None:
    config = CLIPTextConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    assert attention_targets({"text": CLIPTextModel(config)}) == ("k_proj", "out_proj", "q_proj", "v_proj")


class Block(nn.Module):
    """One that has its attention's layers itself, among others."""

    def __init__(self) -> None:
        super().__init__()
        self.img_attn_qkv, self.img_attn_proj, self.mlp = nn.Linear(2, 6), nn.Linear(2, 2), nn.Linear(2, 2)


class TextAttentionPool(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(2, 2)


def test_a_block_that_is_attention_itself_gives_its_attention_only() -> None:
    assert attention_targets({"net": Block()}) == ("img_attn_proj", "img_attn_qkv")


def test_without_attention_it_says_what_to_do() -> None:
    for network in (nn.Sequential(nn.Linear(2, 2)), nn.Sequential(TextAttentionPool())):
        with pytest.raises(UsageError, match=r"no attention is found in net: name layers in update\.lora"):
            attention_targets({"net": network})


def test_endings_are_those_of_the_chosen_and_of_no_others() -> None:
    """By brute force over all choices of some layers."""
    there = ["n.a.q", "n.a.0", "n.b.q", "n.b.0", "n.q"]
    networks = {"n": nn.ModuleDict({"a": nn.ModuleDict({"q": nn.Linear(1, 1), "0": nn.Linear(1, 1)})})}
    networks["n"]["b"] = nn.ModuleDict({"q": nn.Linear(1, 1), "0": nn.Linear(1, 1)})
    networks["n"]["q"] = nn.Linear(1, 1)
    assert sorted(f"n.{name}" for name in adaptable(networks["n"])) == sorted(there)
    for picks in product([True, False], repeat=4):
        chosen = {name for name, pick in zip(there, picks, strict=False) if pick}
        assert set(find_layers(networks, endings(chosen, there))) == chosen
    assert endings({"n.a.0"}, there) == ("a.0",)
    assert endings({"n.a.q", "n.b.q", "n.q"}, there) == ("q",)


def test_torchs_own_attention_and_grouped_convolutions_have_no_adapter() -> None:
    layers = OrderedDict(
        own=nn.MultiheadAttention(4, 2), grouped=nn.Conv2d(4, 4, 3, groups=2), plain=nn.Conv2d(4, 4, 3)
    )
    assert list(adaptable(nn.Sequential(layers))) == ["plain"]
    assert isinstance(layers["own"].out_proj, nn.Linear)
    assert torch.is_tensor(layers["own"].in_proj_weight)
