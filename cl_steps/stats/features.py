"""What a picture shows, as numbers: a CLIP (pictures and texts) or a vision-only model (DINOv2) out of a folder.

The folder is an ordinary transformers model folder with safetensors weights. Nothing is fetched, no code of the folder
is run, no pickle is opened, and torchvision is not needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, CLIPModel
from transformers.utils import logging

from cl_steps.digests import file_sha256
from cl_steps.errors import UsageError

Features = NDArray[np.float32]
LONGEST_TEXT = 512


class Extractor:
    """Unit feature vectors of pictures, and of texts where the model reads them (`reads_text`).

    The same inputs give the same bytes on the same machine. `digest` is the SHA-256 (hex) over the folder's files.

    Raises:
        UsageError: the folder is not such a model, or its weights are not complete.
    """

    def __init__(self, folder: Path, device: str = "cpu", batch_size: int = 16) -> None:
        self.device = torch.device(device)
        self.batch_size = batch_size
        self.reads_text = _model_type(folder) == "clip"
        self.digest = folder_digest(folder)
        self._model = _load(folder, self.reads_text).to(self.device)
        self._processor = _part(folder, AutoImageProcessor, backend="pil")
        self._tokenizer = _part(folder, AutoTokenizer) if self.reads_text else None

    @classmethod
    def open(cls, folder: Path, device: str = "cpu") -> Extractor:
        """The extractor in a folder; raises UsageError as the class does."""
        return cls(folder, device)

    @property
    def num_features(self) -> int:
        """d, the length of a feature vector."""
        config = self._model.config
        return int(config.projection_dim if self.reads_text else config.hidden_size)

    def image_features(self, images: Sequence[Image.Image]) -> Features:
        """(n, d) unit vectors of n pictures of any sizes."""
        return self._batched(images, self._embed_images)

    def text_features(self, texts: Sequence[str]) -> Features:
        """(n, d) unit vectors of n texts, cut where the model stops reading; raises UsageError if it reads none."""
        if not self.reads_text:
            raise UsageError("this extractor reads no text: give a CLIP model folder where captions are compared")
        distinct = sorted(set(texts))
        rows = self._batched(distinct, self._embed_texts)
        place = {text: row for row, text in enumerate(distinct)}
        return rows[[place[text] for text in texts]]

    def agreement(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Features:
        """(n,) cosines between pictures and their own texts, -1 to 1; raises as `text_features`."""
        cosines: Features = (self.image_features(images) * self.text_features(texts)).sum(axis=1)
        return cosines

    def _batched(self, items: Sequence[Any], embed: Callable[[Sequence[Any]], Tensor]) -> Features:
        """All batches have one size, the last filled up: with other sizes the same item's last bits would differ."""
        num_missing = -len(items) % self.batch_size
        filled = [*items, *(items[-1] for _ in range(num_missing))]
        starts = range(0, len(filled), self.batch_size)
        with torch.no_grad():
            parts = [normalize(embed(filled[at : at + self.batch_size]), dim=-1).cpu().numpy() for at in starts]
        rows = np.concatenate([np.empty((0, self.num_features), np.float32), *parts])
        return rows[: len(items)].astype(np.float32)

    def _embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        rgb = [image.convert("RGB") for image in images]
        pixels = self._processor(images=rgb, return_tensors="pt")["pixel_values"].to(self.device, torch.float32)
        if self.reads_text:
            return _tensor(self._model.get_image_features(pixel_values=pixels))
        return _tensor(self._model(pixel_values=pixels))

    def _embed_texts(self, texts: Sequence[str]) -> Tensor:
        assert self._tokenizer is not None
        longest = min(self._model.config.text_config.max_position_embeddings, LONGEST_TEXT)
        tokens = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
        ).to(self.device)
        given = {key: tokens[key] for key in ("input_ids", "attention_mask")}
        return _tensor(self._model.get_text_features(**given))


def folder_digest(folder: Path) -> str:
    """SHA-256 (hex) over the names and contents of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def _model_type(folder: Path) -> str:
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _not_a_model(folder, "it has no config.json that names a model type") from error
    return str(kind)


def _load(folder: Path, is_clip: bool) -> Any:
    kind = CLIPModel if is_clip else AutoModel
    logging.disable_progress_bar()  # it would write to logs too
    model, loading = _part(folder, kind, use_safetensors=True, dtype=torch.float32, output_loading_info=True)
    if loading["missing_keys"]:
        raise _not_a_model(folder, f"its weights lack {len(loading['missing_keys'])} of the model's tensors")
    if not is_clip and not hasattr(model.config, "hidden_size"):
        raise _not_a_model(folder, f"models of type {model.config.model_type!r} have no single feature vector")
    return model.eval().requires_grad_(False)


def _part(folder: Path, kind: Any, **options: Any) -> Any:
    """One part of the folder, from disk alone and without running its code."""
    try:
        return kind.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # transformers raises nearly anything on a wrong folder
        raise _not_a_model(folder, f"{type(error).__name__} while loading it") from error


def _not_a_model(folder: Path, why: str) -> UsageError:
    return UsageError(
        f"{folder} is no CLIP or vision model of transformers ({why}): "
        "give a folder that `save_pretrained` of the model and of its processor wrote"
    )


def _tensor(output: Any) -> Tensor:
    """The feature vectors (n, d) in what a model returns: itself, the pooled vector, or the class token's."""
    if isinstance(output, Tensor):
        return output
    pooled = getattr(output, "pooler_output", None)
    features: Tensor = pooled if pooled is not None else output.last_hidden_state[:, 0]
    return features
