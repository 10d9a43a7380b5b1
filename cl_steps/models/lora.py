"""A LoRA adapter as a file: `pytorch_lora_weights.safetensors`, as diffusers' `load_lora_weights` reads it.

The adapter's rank and alpha travel in the file's metadata (without them alpha would be taken for the rank), which
`save_lora_weights` writes in an order that changes from process to process; here the same adapter gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cl_steps.config import Lora
from cl_steps.digests import file_sha256
from cl_steps.errors import IntegrityError, UsageError
from cl_steps.models.tensors import tensor_bytes

FILE_NAME = "pytorch_lora_weights.safetensors"
METADATA_KEY = "lora_adapter_metadata"
DIGEST_CHARACTERS = 16


@dataclass(frozen=True)
class Adapter:
    """An adapter off the model: its shape, and its tensors by name, `<part of the pipeline>.<layer>.lora_A.weight`."""

    lora: Lora
    weights: dict[str, Tensor]

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the pipeline that it changes, such as `unet`."""
        return tuple(sorted({part_of(key) for key in self.weights}))


class Row:
    """An adapter's weights in one float32 row, of which its tensors are views."""

    def __init__(self, adapter: Adapter, device: torch.device) -> None:
        self.lora = adapter.lora
        self._keys = sorted(adapter.weights)
        self._shapes = [adapter.weights[key].shape for key in self._keys]
        self._sizes = [shape.numel() for shape in self._shapes]
        row = torch.cat([adapter.weights[key].to(device, torch.float32).flatten() for key in self._keys])
        self.flat = nn.Parameter(row, requires_grad=False)

    def named(self) -> dict[str, Tensor]:
        """The weights by name, without gradients."""
        return self.views(self.flat.detach())

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Parts of a row like `flat` by name."""
        parts = torch.split(flat, self._sizes)
        return {key: part.view(shape) for key, part, shape in zip(self._keys, parts, self._shapes, strict=True)}


def part_of(key: str) -> str:
    """The part of the pipeline that a tensor's name begins with."""
    return key.partition(".")[0]


def adapter_path(path: Path) -> Path:
    """The file itself, or the one in a folder; raises IntegrityError where there is none."""
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise IntegrityError(f"there is no {FILE_NAME} in {path}: fetch it again")
    return file


def adapter_digest(path: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of an adapter's file."""
    return file_sha256(adapter_path(path))[:DIGEST_CHARACTERS]


def write_adapter(folder: Path, adapter: Adapter) -> Path:
    """Write an adapter; returns the file.

    Its tensors keep peft's names: diffusers' older names exist for attention layers alone, and of a file with both
    kinds its loader takes one and drops the other without a word.
    """
    metadata = {f"{part}.{key}": value for part in adapter.parts for key, value in _peft_config(adapter.lora).items()}
    tensors = {key: value.contiguous() for key, value in adapter.weights.items()}
    file = folder / FILE_NAME
    folder.mkdir(parents=True, exist_ok=True)
    file.write_bytes(tensor_bytes(tensors, {METADATA_KEY: json.dumps(metadata, sort_keys=True)}))
    return file


def _peft_config(lora: Lora) -> dict[str, Any]:
    return {"r": lora.rank, "lora_alpha": lora.alpha, "target_modules": list(lora.target_modules)}


def read_adapter(path: Path) -> Adapter:
    """An adapter with peft's names for its tensors.

    Raises:
        IntegrityError: no such file, no safetensors, no metadata of an adapter of each part that it changes.
    """
    file = adapter_path(path)
    try:
        with safe_open(file, "pt") as opened:
            metadata = json.loads((opened.metadata() or {})[METADATA_KEY])
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  (no mapping)
        parts = sorted(key.removesuffix(".r") for key in metadata if key.endswith(".r"))
        shapes = [_lora(metadata, part) for part in parts]
        lora = shapes[0]
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise IntegrityError(f"{file} is no adapter that was saved with its rank and alpha: fetch it again") from error
    if any(shape != lora for shape in shapes):
        raise IntegrityError(f"{file} has adapters of several shapes, and a line has one: fetch it again")
    if foreign := [key for key in tensors if part_of(key) not in parts]:
        raise IntegrityError(f"{file} holds {foreign[0]!r:.80}, and says rank and alpha of {' and '.join(parts)} only")
    return Adapter(lora, {key: value for part in parts for key, value in _of_part(tensors, part)})


def _lora(metadata: dict[str, Any], part: str) -> Lora:
    return Lora(
        rank=metadata[f"{part}.r"],
        alpha=metadata[f"{part}.lora_alpha"],
        target_modules=tuple(metadata[f"{part}.target_modules"]),
    )


def _of_part(tensors: dict[str, Tensor], part: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a part under peft's names, whichever of diffusers' names they have."""
    own = {key.removeprefix(f"{part}."): value for key, value in tensors.items() if part_of(key) == part}
    if all(".lora_" in key for key in own):
        own = convert_unet_state_dict_to_peft(own)
    for key, value in own.items():
        yield f"{part}.{key}", value


def check_shape(path: Path, wanted: Lora) -> None:
    """Refuse parameters that ask for another shape than the line's adapter has.

    Raises:
        UsageError: rank, alpha or layers differ; it names what to set.
        IntegrityError: as `read_adapter`.
    """
    own = read_adapter(path).lora
    for field in ("rank", "alpha"):
        if getattr(own, field) != getattr(wanted, field):
            raise UsageError(f"this line's adapter has {field} {getattr(own, field)}: set update.lora.{field} to it")
    if not wanted.is_auto and set(own.target_modules) != set(wanted.target_modules):
        layers = ", ".join(own.target_modules)
        raise UsageError(f"this line's adapter sits on other layers: set update.lora.target_modules to [{layers}]")
