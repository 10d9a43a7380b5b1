"""The pictures: MNIST as Parquet files (`image`: PNG bytes, `label`), made smaller or padded; and as pools."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file
from torch import Tensor

from cl_steps.errors import NoUsableData
from cl_steps.learning.pools import Pool

Pictures = NDArray[np.uint8]
"""(N, h, w), grey."""
PADDED = 32
HELD_OUT = 400
"""Of each class, training pictures that no row learns from: what trials are scored on."""


@dataclass(frozen=True)
class Digits:
    """Pictures (N, h, w) and labels (N,) of each part: `train`, `held_out`, `test`."""

    parts: dict[str, tuple[Pictures, NDArray[np.int64]]]

    def of(self, part: str, classes: tuple[int, ...]) -> tuple[Pictures, NDArray[np.int64]]:
        """Those of some classes."""
        pictures, labels = self.parts[part]
        rows = np.isin(labels, classes)
        return pictures[rows], labels[rows]

    def some(self, label: int, count: int, seed: int) -> Pictures:
        """`count` training pictures of a class; of a larger count, the same and more."""
        pictures, _ = self.of("train", (label,))
        return pictures[np.random.default_rng((seed, label)).permutation(len(pictures))[:count]]


def read_digits(folder: Path, size: int, scratch: Path) -> Digits:
    """Those of `mnist/train.parquet` and `test.parquet` under a folder; what was read once lies in `scratch`.

    Raises:
        NoUsableData: there are no such files.
    """
    found = {name: _read(folder / "mnist" / f"{name}.parquet", size, scratch) for name in ("train", "test")}
    pictures, labels = found["train"]
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        held[own[-min(HELD_OUT, len(own) // 2) :]] = True
    return Digits(
        {
            "train": (pictures[~held], labels[~held]),
            "held_out": (pictures[held], labels[held]),
            "test": found["test"],
        }
    )


def _read(file: Path, size: int, scratch: Path) -> tuple[Pictures, NDArray[np.int64]]:
    if not file.is_file():
        raise NoUsableData(f"there is no {file}: name with --data the folder that holds mnist/{file.name}")
    name = hashlib.sha256(f"{file.resolve()} {file.stat().st_size}".encode()).hexdigest()[:16]
    kept = scratch / f"digits-{size}-{name}.safetensors"
    if not kept.exists():
        table = pq.read_table(file)
        pictures = np.stack([resized(row["bytes"], size) for row in table["image"].to_pylist()])
        scratch.mkdir(parents=True, exist_ok=True)
        draft = kept.with_suffix(".draft")
        save_file({"pictures": pictures, "labels": table["label"].to_numpy().astype(np.int64)}, draft)
        draft.replace(kept)
    tensors = load_file(kept)
    return tensors["pictures"], tensors["labels"]


def resized(png: bytes, size: int) -> Pictures:
    """A picture padded to 32 x 32, and each block of it as one pixel where `size` is smaller: (size, size)."""
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    around = [((PADDED - side) // 2, PADDED - side - (PADDED - side) // 2) for side in picture.shape]
    block = PADDED // size
    blocks = np.pad(picture, around).reshape(size, block, size, block)
    found: Pictures = np.round(blocks.mean(axis=(1, 3))).astype(np.uint8)
    return found


def latents(pictures: Pictures) -> Tensor:
    """(N, 1, h, w) in [-1, 1]."""
    return torch.from_numpy(pictures)[:, None].float() / 127.5 - 1


def pool(pictures: Pictures, labels: NDArray[np.int64], tasks: tuple[tuple[int, ...], ...]) -> Pool:
    """Pictures as the learner takes them; a task is a slice."""
    slices = {label: "".join(map(str, task)) for task in tasks for label in task}
    count, size = len(labels), pictures.shape[:0:-1]
    return Pool(
        latents(pictures), tuple(map(str, labels)), tuple(slices[label] for label in labels.tolist()), (size,) * count
    )
