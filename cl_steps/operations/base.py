"""Taking a base from a folder, a file or the hub: what `retain init` and `retain rebase` ask of it and keep of it."""

from __future__ import annotations

import shutil
from pathlib import Path

from cl_steps.config import Lora, Params
from cl_steps.digests import file_sha256
from cl_steps.documents import write_json
from cl_steps.errors import UsageError
from cl_steps.models.interchange import read_foreign
from cl_steps.models.loading import check_index, folder_of
from cl_steps.models.lora import write_adapter
from cl_steps.models.model import Denoiser, open_denoiser
from cl_steps.models.proof import prove
from cl_steps.models.single_file import is_single_file, unpack
from cl_steps.progress import say

KEPT = (".safetensors", ".json", ".txt", ".model", ".jinja")
PAPERS = ("README.md", "LICENSE", "LICENSE.md", "LICENCE", "LICENCE.md")
"""Where a base says what may be done with it; an export carries them on."""
SOURCE = "source.json"


def take_base(base: str, target: Path, like: str | None = None) -> None:
    """Put a base into a folder, and beside it where it came from: the hub, or one file of weights (`single_file`).

    Raises:
        UsageError: it is no pipeline of the right kind, or no such folder, file or model is there; `like` is given for
            what is a whole pipeline.
        Unavailable: the hub cannot be reached.
    """
    if is_single_file(base):
        unpack(Path(base), like, target)
        write_json(target / SOURCE, {"file": Path(base).name, "sha256": file_sha256(Path(base))})
        return
    if like:
        raise UsageError("--like is for a checkpoint of one file, and the base is a whole pipeline: leave it out")
    source = folder_of(base)
    check_index(source, base)
    copy_model(source, target)
    if not Path(base).is_dir():
        write_json(target / SOURCE, {"hub_id": base, "revision": source.name})


def open_base(folder: Path, params: Params, label: str) -> Denoiser:
    """The base with a fresh adapter `default` of the line's shape, once it is shown that it can be kept up to date.

    Raises:
        UsageError: it cannot, and why; or the adapter does not fit it.
    """
    denoiser = open_denoiser(folder, params.compute, params.serving)
    for line in prove(denoiser, params.update.lora).lines():
        say(f"{label}: {line}")
    denoiser.adapters.add_fresh("default", params.update.lora, params.seed)
    return denoiser


def begin_adapter(denoiser: Denoiser, file: Path | None, target: Path) -> Lora:
    """Write the adapter that a line begins with, and return its shape: the fresh one, or that of another tool's file.

    Raises:
        UsageError: the file is no LoRA, or none for this base.
    """
    if file is None:
        denoiser.adapters.save("default", target)
    else:
        adapter = read_foreign(file, denoiser.pipeline, denoiser.family.watcher.networks)
        write_adapter(target, adapter)
        denoiser.adapters.remove("default")
        denoiser.adapters.load("default", target)
    return denoiser.adapters.shape("default")


def copy_model(source: Path, target: Path) -> None:
    """Copy what a model needs and nothing that could hold code or pickles.

    Raises:
        UsageError: a link leads out of the folder and, of a snapshot of the hub, out of the hub's cache of that model.
    """
    for path in sorted(source.rglob("*")):
        needed = path.suffix in KEPT or path.name in PAPERS or path.is_dir()
        if path.is_symlink() and path.exists() and needed and not _stays(path, source):
            raise UsageError(
                f"{path} is a link that leads out of {source}: put what it means in its place, or remove it"
            )
        if path.is_file() and needed:
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def _stays(link: Path, source: Path) -> bool:
    """Whether what a link leads to lies in the folder, or among the blobs that a snapshot of the hub consists of."""
    root = source.resolve()
    homes = (root, root.parents[1] / "blobs") if root.parent.name == "snapshots" else (root,)
    return any(link.resolve().is_relative_to(home) for home in homes)
