"""Opens a diffusers pipeline safely: safetensors only, no code from the folder, no network for a folder.

Any class of diffusers is opened whose parts are classes of diffusers and transformers; `family.derive` says whether it
can be trained.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import Any

import diffusers
import httpx
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import get_cached_repo_tree, list_repo_files, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from transformers.utils import logging as transformers_logging

from cl_steps.config import Compute
from cl_steps.errors import Unavailable, UsageError, first_line
from cl_steps.models.classes import with_classes
from cl_steps.models.placing import place

DEFAULT = Compute()
INDEX = "model_index.json"
LIBRARIES = ("diffusers", "transformers")
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts that no training needs. A safety checker's black pictures would be measured as the model's own."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
VARIANT = re.compile(r"\.(fp16|bf16|fp32)(-\d{5}-of-\d{5})?\.safetensors$")


def load_pipeline(
    path_or_id: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    compute: Compute = DEFAULT,
) -> DiffusionPipeline:
    """A frozen pipeline in evaluation mode, from a folder or a Hugging Face id.

    All parts have `dtype` but the autoencoder, which has float32: many overflow in half precision. How its networks
    lie in memory `compute` says (`placing`).

    Raises:
        UsageError: no pipeline is there, it is incomplete, or holds what is not loaded here; or as `place` does.
        Unavailable: the hub cannot be reached.
    """
    folder = folder_of(path_or_id)
    kind = check_index(folder, str(path_or_id))
    _refuse_pickles(folder, str(path_or_id))
    quiet()
    try:
        pipeline: DiffusionPipeline = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype={"vae": torch.float32, "default": dtype},
            variant=variant_in(folder),
            **unused(kind),
        )
    except Exception as error:  # diffusers, transformers and safetensors raise a dozen kinds for a broken folder
        raise UsageError(
            f"{path_or_id} is no complete diffusers pipeline, save it again: {first_line(error):.200}"
        ) from error
    pipeline = with_classes(pipeline)
    place(pipeline, torch.device(device), compute)
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
    # TensorFloat-32: float32 products on a GPU's tensor cores.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("compute.device is cuda and no CUDA device is there: set it to auto or cpu")
    return torch.device("cuda" if compute.device != "cpu" and torch.cuda.is_available() else "cpu")


def choose_dtype(compute: Compute, device: torch.device) -> torch.dtype:
    """The precision in which the frozen base computes."""
    if compute.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return DTYPES[compute.precision]


def folder_of(path_or_id: str | Path) -> Path:
    """The folder itself, or that of the hub's snapshot, fetched if it is not in the cache."""
    if Path(path_or_id).is_dir():
        return Path(path_or_id)
    return fetched(path_or_id, _download)


def _download(name: str) -> str:
    """The pipeline's files, and beside them the card and licence that the pipeline itself has no use for."""
    variant = _variant(PurePath(file) for file in _files(name))
    folder = str(DiffusionPipeline.download(name, variant=variant, use_safetensors=True, safety_checker=None))
    snapshot_download(name, revision=Path(folder).name, allow_patterns=["README.md", "LICENSE*", "LICENCE*"])
    return folder


def _files(name: str) -> list[str]:
    """The files of a repository of the hub, as it says; where it cannot be asked, as it last said."""
    try:
        return list(list_repo_files(name))
    except RepositoryNotFoundError:
        raise
    except (OSError, httpx.TransportError):
        try:
            return [file.path for file in get_cached_repo_tree(name)]
        except CachedRepoTreeNotFoundError as error:
            raise LocalEntryNotFoundError(f"{name} was never fetched") from error


def hub_snapshot(hub_id: str) -> Path:
    """The files of any other model of the hub, safetensors only; raises as `folder_of` does."""
    return fetched(hub_id, lambda name: snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "*.txt"]))


def fetched(path_or_id: str | Path, fetch: Callable[[str], str]) -> Path:
    """What `fetch` brings of a model of the hub; raises as `folder_of` does."""
    if isinstance(path_or_id, Path) or not HUB_ID.fullmatch(path_or_id):
        raise UsageError(f"{path_or_id} is neither a folder nor a Hugging Face id such as owner/name")
    try:
        return Path(fetch(path_or_id))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UsageError(f"there is no model {path_or_id} on the hub that you may read: check its name") from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise Unavailable(f"{path_or_id} cannot be fetched from the hub now: try again, or give a folder") from error


def check_index(folder: Path, name: str) -> type[DiffusionPipeline]:
    """The pipeline's class; refuses what is none, or names parts outside diffusers and transformers.

    Raises:
        UsageError: what is wrong, in one sentence.
    """
    try:
        kind = _index(folder)["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{name} is no diffusers pipeline: it needs a {INDEX} that names its class") from error
    found = getattr(diffusers, kind, None) if isinstance(kind, str) else None
    if not (isinstance(found, type) and issubclass(found, DiffusionPipeline)):
        raise UsageError(
            f"{name} is a {kind!r:.80}, which diffusers {diffusers.__version__} has no pipeline of: give one"
        )
    for part, (library, *_) in parts_of(folder).items():
        if library not in LIBRARIES:
            trusted = " and ".join(LIBRARIES)
            raise UsageError(f"{name} takes its {part!r:.40} from {library!r:.80}: use parts of {trusted} only")
    return found


def parts_of(folder: Path) -> dict[str, tuple[Any, ...]]:
    """What a pipeline consists of: (library, class) by name."""
    index = _index(folder)
    named = {key: tuple(value) for key, value in index.items() if isinstance(value, list) and key not in UNUSED}
    return {key: value for key, value in named.items() if len(value) == 2 and value[0] is not None}


def unused(kind: type[DiffusionPipeline]) -> dict[str, Any]:
    """Arguments with which a pipeline is made without the parts that are not used."""
    known = inspect.signature(kind.__init__).parameters
    without: dict[str, Any] = {name: None for name in UNUSED if name in known}
    return without | ({"requires_safety_checker": False} if "requires_safety_checker" in known else {})


def _index(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / INDEX).read_text(encoding="utf-8")))


def _refuse_pickles(folder: Path, name: str) -> None:
    """Say the remedy where a part's weights are there as pickles only."""
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        pickles = [path for path in part.iterdir() if path.suffix in PICKLES]
        if pickles and part.name not in UNUSED and not any(part.glob("*.safetensors")):
            raise UsageError(
                f"{name} has its {part.name} as {pickles[0].name}, a pickle, which may run code: open it where you "
                "trust it and write it again with `save_pretrained(folder, safe_serialization=True)`"
            )


def variant_in(folder: Path) -> str | None:
    """The variant of a folder's weights, as `_variant` finds it."""
    return _variant(path.relative_to(folder) for path in folder.glob("*/*"))


def _variant(files: Iterable[PurePath]) -> str | None:
    """The variant of the weights' files, such as `fp16`, where one part has its weights in that variant only."""
    weights: dict[str, list[re.Match[str] | None]] = {}
    for file in sorted(files):
        if len(file.parts) == 2 and file.suffix == ".safetensors" and file.parts[0] not in UNUSED:
            weights.setdefault(file.parts[0], []).append(VARIANT.search(file.name))
    only = (found[0] for found in weights.values() if all(found))
    return next((match[1] for match in only if match), None)


def quiet() -> None:
    """Switch off what libraries say."""
    # What they warn of here nobody can help, but for captions that are cut: `Captions.cut` counts those.
    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()
