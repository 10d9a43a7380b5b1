"""Opens a diffusers pipeline safely: safetensors only, no code from the folder, no network for a folder.

Supported are the classes of `CLASSES`: Stable Diffusion 1.x and 2.x and smaller kin.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from transformers.utils import logging as transformers_logging

from cl_steps.config import Compute
from cl_steps.errors import Unavailable, UsageError, first_line

CLASSES = {"StableDiffusionPipeline": StableDiffusionPipeline}
"""Pipelines whose parts are `PARTS` and whose call takes prompts as embeddings."""
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
LIBRARIES = ("diffusers", "transformers")
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def load_pipeline(
    path_or_id: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> StableDiffusionPipeline:
    """A frozen pipeline in evaluation mode, from a folder or a Hugging Face id.

    The text encoder has `dtype`. The UNet always has float32, since small changes to its weights would be rounded away
    in half precision (it computes in half under autocast), and so has the autoencoder, which overflows in half.
    The safety checker is left out: its black pictures would be measured as the model's own.

    Raises:
        UsageError: no pipeline is there, it is incomplete, or its class is not supported.
        Unavailable: the hub cannot be reached.
    """
    folder = folder_of(path_or_id)
    kind = check_index(folder, str(path_or_id))
    _quiet()
    try:
        pipeline = CLASSES[kind].from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype={"unet": torch.float32, "vae": torch.float32, "default": dtype},
            variant=_variant(folder),
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
            requires_safety_checker=False,
        )
    except Exception as error:  # diffusers, transformers and safetensors raise a dozen kinds for a broken folder
        raise UsageError(
            f"{path_or_id} is no complete diffusers pipeline, save it again: {first_line(error):.200}"
        ) from error
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False).eval().to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def choose_device(compute: Compute) -> torch.device:
    """The device of `compute`; sets the number of threads (0 leaves torch's own) and repeatable kernels.

    Raises:
        UsageError: CUDA is asked for and is not there.
    """
    if compute.threads:
        torch.set_num_threads(compute.threads)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("compute.device is cuda and no CUDA device is there: set it to auto or cpu")
    return torch.device("cuda" if compute.device != "cpu" and torch.cuda.is_available() else "cpu")


def folder_of(path_or_id: str | Path) -> Path:
    """The folder itself, or that of the hub's snapshot, fetched if it is not in the cache."""
    if Path(path_or_id).is_dir():
        return Path(path_or_id)
    return _fetched(path_or_id, _download)


def _download(name: str) -> str:
    """The pipeline's files, and beside them the card and licence that the pipeline itself has no use for."""
    folder = str(StableDiffusionPipeline.download(name, use_safetensors=True, safety_checker=None))
    snapshot_download(name, revision=Path(folder).name, allow_patterns=["README.md", "LICENSE*", "LICENCE*"])
    return folder


def hub_snapshot(hub_id: str) -> Path:
    """The files of any other model of the hub, safetensors only; raises as `folder_of` does."""
    return _fetched(hub_id, lambda name: snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "*.txt"]))


def _fetched(path_or_id: str | Path, fetch: Callable[[str], str]) -> Path:
    if isinstance(path_or_id, Path) or not HUB_ID.fullmatch(path_or_id):
        raise UsageError(f"{path_or_id} is neither a folder nor a Hugging Face id such as owner/name")
    try:
        return Path(fetch(path_or_id))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UsageError(f"there is no model {path_or_id} on the hub that you may read: check its name") from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise Unavailable(f"{path_or_id} cannot be fetched from the hub now: try again, or give a folder") from error


def check_index(folder: Path, name: str) -> str:
    """The pipeline's class; refuses what is none, another family, or names parts outside diffusers and transformers."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        kind, parts = index["_class_name"], {key: tuple(index[key]) for key in PARTS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{name} is no diffusers pipeline: it needs a model_index.json with all parts") from error
    if kind not in CLASSES:
        supported = " or ".join(CLASSES)
        raise UsageError(f"{name} is a {kind!r:.80}, and only a {supported} (SD 1.x, 2.x) is supported: give one")
    named = {key: tuple(value) for key, value in index.items() if isinstance(value, list) and key not in UNUSED}
    for part, (library, *_) in (named | parts).items():
        if library not in LIBRARIES:
            trusted = " and ".join(LIBRARIES)
            raise UsageError(f"{name} takes its {part!r:.40} from {library!r:.80}: use parts of {trusted} only")
    return str(kind)


def _variant(folder: Path) -> str | None:
    """`fp16` where the UNet's weights are there in that variant only."""
    files = [file.name for file in (folder / "unet").glob("*.safetensors")]
    return "fp16" if files and all(".fp16." in name for name in files) else None


def _quiet() -> None:
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
