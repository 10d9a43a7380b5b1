"""A LoRA adapter as a file: `pytorch_lora_weights.safetensors`, as diffusers' `load_lora_weights` reads it.

The adapter's rank and alpha travel in the file's metadata (without them alpha would be taken for the rank), which
`save_lora_weights` writes in an order that changes from process to process; here the same adapter gives the same bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cl_steps.config import Lora
from cl_steps.digests import file_sha256
from cl_steps.errors import IntegrityError, UsageError
from cl_steps.models.tensors import tensor_bytes

FILE_NAME = "pytorch_lora_weights.safetensors"
METADATA_KEY = "lora_adapter_metadata"
DIGEST_CHARACTERS = 16


@dataclass(frozen=True)
class Adapter:
    """An adapter off the model: its shape, and its tensors by name."""

    lora: Lora
    weights: dict[str, Tensor]


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
    metadata = {
        "unet.r": adapter.lora.rank,
        "unet.lora_alpha": adapter.lora.alpha,
        "unet.target_modules": list(adapter.lora.target_modules),
    }
    tensors = {f"unet.{key}": value.contiguous() for key, value in adapter.weights.items()}
    file = folder / FILE_NAME
    folder.mkdir(parents=True, exist_ok=True)
    file.write_bytes(tensor_bytes(tensors, {METADATA_KEY: json.dumps(metadata, sort_keys=True)}))
    return file


def read_adapter(path: Path) -> Adapter:
    """An adapter with peft's names for its tensors.

    Raises:
        IntegrityError: no such file, no safetensors, no metadata of an adapter of a UNet.
    """
    file = adapter_path(path)
    try:
        with safe_open(file, "pt") as opened:
            metadata = json.loads((opened.metadata() or {})[METADATA_KEY])
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  (no mapping)
        lora = Lora(
            rank=metadata["unet.r"],
            alpha=metadata["unet.lora_alpha"],
            target_modules=tuple(metadata["unet.target_modules"]),
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"{file} is no adapter that was saved with its rank and alpha: fetch it again") from error
    if foreign := [key for key in tensors if not key.startswith("unet.")]:
        raise IntegrityError(f"{file} holds {foreign[0]!r:.80}: only adapters of the UNet are supported")
    stripped = {key.removeprefix("unet."): value for key, value in tensors.items()}
    return Adapter(lora, convert_unet_state_dict_to_peft(stripped))


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
    if set(own.target_modules) != set(wanted.target_modules):
        layers = ", ".join(own.target_modules)
        raise UsageError(f"this line's adapter sits on other layers: set update.lora.target_modules to [{layers}]")
