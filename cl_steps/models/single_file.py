"""A checkpoint of one file, as most finetunes are handed on: made into the folder that a pipeline is kept in.

The file has the weights of the network, and often of autoencoder and text encoders, under the names of the tool that
trained it. What it lacks (configurations, tokenizers, and whatever weights it does not hold) is taken from a pipeline
like it: the one given, or the one of the hub that diffusers knows for such weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, ModelMixin, pipelines
from diffusers.loaders import FromOriginalModelMixin
from diffusers.loaders.single_file import load_single_file_sub_model
from diffusers.loaders.single_file_utils import (
    LDM_VAE_KEYS,
    fetch_diffusers_config,
    is_clip_model_in_single_file,
    is_t5_in_single_file,
)
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cl_steps.errors import Unavailable, UsageError, first_line
from cl_steps.models.loading import PICKLES, check_index, fetched, parts_of, quiet, unused, variant_in

SUFFIX = ".safetensors"
CONFIGS = ("*.json", "*.txt", "*.model", "*.jinja", "README.md", "LICENSE*", "LICENCE*")
QUANTISED = (".absmax", "quant_state", "scaled_fp8", "scale_weight", ".weight_scale", ".scale_input")
"""What a tensor's name betrays whose weight is not the number that it holds."""


def is_single_file(base: str) -> bool:
    """Whether a base is a checkpoint of one file.

    Raises:
        UsageError: it is named as one, and is not there, or is a pickle.
    """
    file = Path(base)
    if file.suffix in PICKLES:
        raise UsageError(
            f"{base} is a pickle, which may run code: open it where you trust it and write its tensors again as a "
            f"{SUFFIX} file, or give the folder of a diffusers pipeline"
        )
    if file.suffix == SUFFIX and not file.is_file():
        raise UsageError(f"there is no file {base}: mend its path")
    return file.suffix == SUFFIX


def unpack(file: Path, like: str | None, target: Path) -> None:
    """Write the pipeline whose weights are in a file as a folder of diffusers, in the precision that the file has.

    Args:
        like: a folder or hub id of a pipeline of its family; None takes the one of the hub that diffusers knows.
        target: a folder that is not there yet, or is empty.

    Raises:
        UsageError: it is no checkpoint of such a pipeline, or holds quantised weights.
        Unavailable: the pipeline like it cannot be fetched.
    """
    weights = _read(file)
    name = like or str(fetch_diffusers_config(weights)["pretrained_model_name_or_path"])
    folder = _fetch(file, name, CONFIGS)
    check_index(folder, name)
    classes = _classes(folder)
    held = _held(file, weights, classes)
    lacking = [part for part, kind in classes.items() if part not in held and issubclass(kind, nn.Module)]
    if not Path(name).is_dir() and lacking:
        folder = _fetch(file, name, (*CONFIGS, *(f"{part}/*{SUFFIX}" for part in lacking)))
    for part in lacking:
        if not any((folder / part).glob(f"*{SUFFIX}")):
            raise UsageError(
                f"{file} holds no {part}, and {name} has none: give a whole pipeline of its family, --like"
            )
    quiet()
    _assembled(file, weights, folder, held).save_pretrained(target)


def _read(file: Path) -> dict[str, Tensor]:
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{file} is no whole safetensors file: fetch it again") from error
    if marks := [key for key in weights if any(sign in key for sign in QUANTISED)]:
        raise UsageError(
            f"{file} holds quantised weights, such as {marks[0]!r:.80}: give the checkpoint in half precision, and set "
            "compute.base for a base that is quantised where it is used"
        )
    return weights


def _fetch(file: Path, name: str, patterns: tuple[str, ...]) -> Path:
    """The folder of the pipeline like the file's, with the files named."""
    if Path(name).is_dir():
        return Path(name)
    try:
        return fetched(name, lambda hub_id: snapshot_download(hub_id, allow_patterns=list(patterns)))
    except (Unavailable, UsageError) as error:
        raise type(error)(
            f"what {file} does not hold (configurations, tokenizers) is in {name}, and cannot be had: {error}; or give "
            "the folder of a pipeline of its family by --like"
        ) from error


def _classes(folder: Path) -> dict[str, type]:
    """The parts of a pipeline by name."""
    return {part: getattr(import_module(library), kind) for part, (library, kind) in parts_of(folder).items()}


def _held(file: Path, weights: Mapping[str, Tensor], classes: Mapping[str, type]) -> list[str]:
    """The parts whose weights are in the file: always the network."""
    networks = [part for part, kind in classes.items() if _converts(kind) and not hasattr(kind, "encode")]
    if len(networks) != 1:
        raise UsageError(
            f"{file} is one file, and its pipeline has {len(networks)} networks that diffusers reads from one: "
            "give the folder of the pipeline"
        )
    has_codes = any(key.startswith(tuple(LDM_VAE_KEYS)) for key in weights)
    others = [part for part, kind in classes.items() if _converts(kind) and hasattr(kind, "encode") and has_codes]
    texts = [part for part, kind in classes.items() if is_clip_model_in_single_file(kind, weights)]
    texts += [part for part, kind in classes.items() if kind.__name__ == "T5EncoderModel"] * is_t5_in_single_file(
        weights
    )
    return networks + others + texts


def _converts(kind: type) -> bool:
    return issubclass(kind, ModelMixin) and issubclass(kind, FromOriginalModelMixin)


def _assembled(file: Path, weights: dict[str, Tensor], folder: Path, held: list[str]) -> DiffusionPipeline:
    kind, dtype, parts = check_index(folder, str(folder)), _precision(weights), parts_of(folder)
    refused = f"{file} is no checkpoint of a {kind.__name__}"
    try:
        made = {part: _made(part, parts[part], weights, folder, dtype) for part in held}
        pipeline: DiffusionPipeline = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=dtype,
            variant=variant_in(folder),
            **unused(kind),
            **made,
        )
    except NotImplementedError as error:  # torch, of a weight that nobody filled
        raise UsageError(f"{refused}: it lacks some of the weights of its {' or '.join(held)}") from error
    except Exception as error:  # each family's converter raises its own
        raise UsageError(f"{refused}: {first_line(error):.200}") from error
    return pipeline


def _made(part: str, of: tuple[Any, ...], weights: dict[str, Tensor], folder: Path, dtype: torch.dtype) -> nn.Module:
    """A part with the file's weights."""
    library, kind = of
    model: nn.Module = load_single_file_sub_model(
        library_name=library,
        class_name=kind,
        name=part,
        # Converters take out of it what is theirs.
        checkpoint=dict(weights),
        pipelines=pipelines,
        is_pipeline_module=False,
        cached_model_config_path=str(folder),
        local_files_only=True,
        torch_dtype=dtype,
    )
    return model


def _precision(weights: Mapping[str, Tensor]) -> torch.dtype:
    """That of most of the weights; one of eight bits is kept in 16, which hold it exactly."""
    sizes: Counter[torch.dtype] = Counter()
    for weight in weights.values():
        if weight.is_floating_point():
            sizes[weight.dtype if weight.dtype.itemsize > 1 else torch.bfloat16] += weight.numel()
    return sizes.most_common(1)[0][0] if sizes else torch.float32
