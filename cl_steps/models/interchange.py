"""LoRA files of other tools: read as an adapter of ours, and an adapter written as ComfyUI and A1111 load it.

Read are safetensors whose layers have the names of the network itself, with whatever goes before and after them (peft,
diffusers, kohya on diffusers' blocks, ComfyUI), and else those that the pipeline's own `lora_state_dict` knows (kohya
on the original blocks, and each family's trainers). A layer computes s B A x, s = alpha / r, as it did there; where
ranks differ the smaller ones are filled up with rows that B does not use, and where s differs it moves into B.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cl_steps.config import Lora
from cl_steps.errors import UsageError, first_line
from cl_steps.models.lora import METADATA_KEY, Adapter, part_of
from cl_steps.models.targets import adaptable, endings, find_layers, shapes
from cl_steps.models.tensors import tensor_bytes
from cl_steps.progress import say

PEFT_CONFIG = "adapter_config.json"
OTHER_KINDS = {
    "dora_scale": "DoRA", "lora_magnitude_vector": "DoRA", ".lokr_": "LoKr", ".hada_": "LoHa", ".oft_": "OFT",
    ".lora_mid.": "LoCon with a middle matrix", ".lora_B.bias": "LoRA with biases", ".diff": "differences of weights",
}  # fmt: skip
"""What a tensor's name betrays."""
TEXT_ENCODER = re.compile(r"(text_encoder|lora_te\d?_)")
NAME = re.compile(r"(?P<layer>.+)\.(?P<what>lora_A|lora_B|lora_down|lora_up|alpha)(\.default(_\d+)?)?(\.weight)?")
SIDES = {"lora_A": "down", "lora_down": "down", "lora_B": "up", "lora_up": "up", "alpha": "alpha"}
COMFYUI = {
    **dict.fromkeys(("SD3Transformer2DModel", "FluxTransformer2DModel", "AuraFlowTransformer2DModel"), "transformer"),
    **dict.fromkeys(("QwenImageTransformer2DModel", "ZImageTransformer2DModel"), "transformer"),
    "PixArtTransformer2DModel": "transformer",
    "LTXVideoTransformer3DModel": "diffusion_model",
}
"""Transformers whose layers ComfyUI knows by diffusers' names (comfy/lora.py, model_lora_keys_unet), and after what."""


@dataclass
class Pair:
    """A layer's A and B, in float32, and what B A is multiplied by."""

    down: Tensor
    up: Tensor
    scale: float


def read_foreign(file: Path, pipeline: object, networks: Mapping[str, nn.Module]) -> Adapter:
    """The adapter of the networks in a file of whatever tool; what it holds for text encoders is left out and said.

    Raises:
        UsageError: no safetensors, another kind than LoRA, or one for another model.
    """
    tensors, configs = _read(file, next(iter(networks)))
    _refuse_other_kinds(file, tensors, configs)
    kept = {key: value.float() for key, value in tensors.items() if not TEXT_ENCODER.match(key)}
    if len(kept) < len(tensors):
        say(f"{file}: {len(tensors) - len(kept)} tensors for text encoders are left out: those stay as the base's")
    there = {
        f"{part}.{name}": layer for part, network in networks.items() for name, layer in adaptable(network).items()
    }
    aliases = _aliases(there, next(iter(networks)))
    found, unknown = _pairs(kept, aliases, configs)
    if unknown:
        converted, scale = _converted(file, pipeline, kept)
        found, unknown = _pairs(converted, aliases, {})
        for pair in found.values():
            pair.up, pair.scale = pair.up / scale, scale
    if unknown or not found:
        what = f"{len(unknown)} of its tensors have no layer, such as {unknown[0]!r:.120}" if unknown else "it is empty"
        raise UsageError(f"{file} is no LoRA for this base: {what}")
    adapter = _uniform(file, found, there)
    if find_layers(networks, adapter.lora.target_modules).keys() != found.keys():
        raise UsageError(f"{file} sits on layers that cannot be named without others: begin the line without it")
    return adapter


def write_comfyui(file: Path, adapter: Adapter, kind: str) -> Path:
    """Write an adapter as ComfyUI loads it, and A1111 that of a UNet; `kind` is the class of its network.

    A UNet's layers have kohya's names on diffusers' blocks, a transformer's diffusers' own; alpha is a tensor of each.

    Raises:
        UsageError: ComfyUI does not know the layers of this kind of network by diffusers' names.
    """
    is_unet = adapter.parts == ("unet",)
    if not is_unet and (kind not in COMFYUI or len(adapter.parts) > 1):
        raise UsageError(f"ComfyUI knows no layers of a {kind} by these names: export for diffusers, without --format")
    down, up = ("lora_down", "lora_up") if is_unet else ("lora_A", "lora_B")
    tensors = {}
    for key, value in adapter.weights.items():
        _, _, layer = key.rpartition(".lora_")[0].partition(".")
        stem = f"lora_unet_{layer.replace('.', '_')}" if is_unet else f"{COMFYUI[kind]}.{layer}"
        tensors[f"{stem}.{down if '.lora_A.' in key else up}.weight"] = value.contiguous()
        tensors[f"{stem}.alpha"] = torch.tensor(float(adapter.lora.alpha))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(tensor_bytes(tensors))
    return file


def _read(file: Path, main: str) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Tensors, and peft's configuration of each part of the pipeline, from the file itself or from beside it."""
    try:
        with safe_open(file, "pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  (no mapping)
            said = json.loads((opened.metadata() or {}).get(METADATA_KEY, "{}"))
        beside = file.parent / PEFT_CONFIG
        configs = {main: json.loads(beside.read_text(encoding="utf-8"))} if beside.is_file() else {}
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"{file} is no safetensors file (pickles are not read): save the LoRA as one") from error
    for key, value in said.items():
        part, _, name = key.partition(".")
        configs.setdefault(part, {})[name] = value
    return tensors, configs


def _refuse_other_kinds(file: Path, tensors: Collection[str], configs: Mapping[str, Mapping[str, Any]]) -> None:
    for sign, kind in OTHER_KINDS.items():
        if any(sign in key for key in tensors) or (kind == "DoRA" and any(c.get("use_dora") for c in configs.values())):
            raise UsageError(f"{file} is {kind}, and only plain LoRA can be gone on from: give one, or begin without")


def _aliases(layers: Collection[str], main: str) -> dict[str, str]:
    """What the layers are called elsewhere; with the part that most files mean, the first, also without its name."""
    found: dict[str, str] = {}
    for name in layers:
        part, _, layer = name.partition(".")
        flat = layer.replace(".", "_")
        found |= {name: name, f"lora_{part}_{flat}": name}
        if part == main:
            found |= {f"{prefix}{layer}": name for prefix in ("", "diffusion_model.", "base_model.model.")}
            found[f"lora_unet_{flat}"] = name
    return found


def _pairs(
    tensors: Mapping[str, Tensor], aliases: Mapping[str, str], configs: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Pair], list[str]]:
    """The layers' pairs by the names that they have here, and the tensors that belong to none."""
    found: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for key, value in convert_unet_state_dict_to_peft(dict(tensors)).items():
        named = NAME.fullmatch(key)
        if named and named["layer"] in aliases:
            found.setdefault(aliases[named["layer"]], {})[SIDES[named["what"]]] = value
        else:
            unknown.append(key)
    halves = [name for name, own in found.items() if not {"down", "up"} <= own.keys()]
    pairs = {
        name: Pair(own["down"], own["up"], _scale(name, own, configs))
        for name, own in found.items()
        if name not in halves
    }
    return pairs, unknown + halves


def _scale(name: str, own: Mapping[str, Tensor], configs: Mapping[str, Mapping[str, Any]]) -> float:
    """alpha / r by the layer's own alpha, or else by its part's configuration, or else 1, as diffusers has it."""
    rank = len(own["down"])
    if "alpha" in own:
        return float(own["alpha"]) / rank
    config, layer = configs.get(part_of(name), {}), name.partition(".")[2]
    alpha = config.get("lora_alpha", rank)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", layer):
            alpha = value
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _converted(file: Path, pipeline: object, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], float]:
    """The tensors under diffusers' names, and the one alpha / r that they had; where they had several, these are in B.

    The converters treat alpha in different ways; with alpha = r all of them leave it.
    """
    if not hasattr(pipeline, "lora_state_dict"):
        raise UsageError(f"diffusers loads no LoRA into a {type(pipeline).__name__}: begin without one")
    even, scales = dict(tensors), set()
    for key in (key for key in tensors if key.endswith(".alpha")):
        layer = key.removesuffix(".alpha")
        up = next((name for name in (f"{layer}.lora_up.weight", f"{layer}.lora_B.weight") if name in even), None)
        if up:
            rank = even[up].shape[1]
            scales.add(float(even[key]) / rank)
            even |= {up: even[up] * (float(even[key]) / rank), key: torch.tensor(float(rank))}
    config = getattr(getattr(pipeline, "unet", None), "config", None)
    try:
        found = pipeline.lora_state_dict(even, **({"unet_config": config} if config else {}))
    except Exception as error:  # each family's converter raises its own
        raise UsageError(f"{file} is no LoRA for a {type(pipeline).__name__}: {first_line(error):.200}") from error
    state: dict[str, Tensor] = found[0] if isinstance(found, tuple) else found
    return state, scales.pop() if len(scales) == 1 else 1.0


def _uniform(file: Path, pairs: Mapping[str, Pair], there: Mapping[str, nn.Module]) -> Adapter:
    """One rank and one alpha for all layers; the function stays what it was."""
    rank, scales = max(len(pair.down) for pair in pairs.values()), {pair.scale for pair in pairs.values()}
    alpha = next(iter(scales)) * rank
    if len(scales) > 1 or not (alpha >= 1 and float(alpha).is_integer()):
        alpha = float(rank)
    random, weights = torch.Generator().manual_seed(0), {}
    for name, pair in sorted(pairs.items()):
        own = shapes(name, there[name], len(pair.down))
        for (key, shape), tensor in zip(own.items(), (pair.down, pair.up), strict=True):
            if tensor.numel() != math.prod(shape):
                raise UsageError(f"{file} is no LoRA for this base: {key} is {tuple(tensor.shape)} and not {shape}")
        (down_key, down_shape), (up_key, up_shape) = own.items()
        down, up = pair.down.reshape(down_shape), pair.up.reshape(up_shape) * (pair.scale * rank / alpha)
        weights[down_key], weights[up_key] = _filled(down, up, rank, random)
    return Adapter(Lora(rank=rank, alpha=int(alpha), target_modules=endings(pairs, there)), weights)


def _filled(down: Tensor, up: Tensor, rank: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """A and B of a larger rank: new rows of A as in a fresh adapter, and zeros in B, so that they change nothing."""
    more, bound = rank - len(down), 1 / math.sqrt(down[0].numel())
    rows = torch.empty((more, *down.shape[1:])).uniform_(-bound, bound, generator=random)
    return torch.cat([down, rows]), torch.cat([up, up.new_zeros((len(up), more, *up.shape[2:]))], dim=1)
