"""A Stable Diffusion pipeline as one file, under the names of the code that it was first trained with.

diffusers converts from these names and not to them: here is the way back, for networks without anything unusual.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import DIFFUSERS_TO_LDM_MAPPING
from safetensors.torch import save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def write_original(file: Path, pipeline: StableDiffusionPipeline) -> Path:
    """Write all that has weights: network, autoencoder, text encoder."""
    tensors = {f"model.diffusion_model.{key}": value for key, value in _unet(pipeline.unet).items()}
    tensors |= {f"first_stage_model.{key}": value for key, value in _vae(pipeline.vae).items()}
    text = {key.removeprefix("text_model."): value for key, value in pipeline.text_encoder.state_dict().items()}
    tensors |= {f"cond_stage_model.transformer.text_model.{key}": value for key, value in text.items()}
    save_file({key: value.contiguous() for key, value in tensors.items()}, file)
    return file


def _unet(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    each, plain = unet.config.layers_per_block + 1, DIFFUSERS_TO_LDM_MAPPING["unet"]["layers"]
    return {plain.get(key) or _unet_key(key, each): value for key, value in unet.state_dict().items()}


def _unet_key(key: str, each: int) -> str:
    if middle := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", key):
        kind, number, rest = middle.groups()
        return f"middle_block.{2 * int(number) + (kind == 'attentions')}.{_layer(kind, rest)}"
    found = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", key)
    assert found
    way, block, kind, number, rest = found.groups()
    if kind == "downsamplers":
        return f"input_blocks.{(int(block) + 1) * each}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":
        return f"output_blocks.{(int(block) + 1) * each - 1}.2.{rest}"
    at = int(block) * each + int(number)
    place = f"input_blocks.{at + 1}" if way == "down" else f"output_blocks.{at}"
    return f"{place}.{int(kind == 'attentions')}.{_layer(kind, rest)}"


def _layer(kind: str, rest: str) -> str:
    return _renamed(rest, RESNET) if kind == "resnets" else rest


def _vae(vae: AutoencoderKL) -> dict[str, Tensor]:
    last, plain = len(vae.config.block_out_channels) - 1, DIFFUSERS_TO_LDM_MAPPING["vae"]
    return {plain.get(key) or _vae_key(key, last): value for key, value in vae.state_dict().items()}


def _vae_key(key: str, last: int) -> str:
    key = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", key)
    key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d+)\.resnets", lambda found: f"up.{last - int(found[1])}.block", key)
    key = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda found: f"up.{last - int(found[1])}.upsample", key)
    key = re.sub(r"mid_block\.resnets\.(\d+)", lambda found: f"mid.block_{int(found[1]) + 1}", key)
    if "mid_block.attentions" in key:
        return _renamed(key.replace("mid_block.attentions.0", "mid.attn_1"), ATTENTION)
    return key.replace("conv_shortcut", "nin_shortcut")


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """A layer's name whose beginning, or part after a dot, has another name there."""
    for own, other in names.items():
        name = re.sub(rf"(^|\.){re.escape(own)}(?=\.)", rf"\g<1>{other}", name)
    return name
