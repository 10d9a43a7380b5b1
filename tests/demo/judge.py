"""Judges drawings with the feature extractor: which of the 50 captions (digit and style) fits a picture best.

Pictures are (N, 32, 32, 3), either bytes or floats in 0..1.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from cl_steps.demo import drawing
from cl_steps.demo.drawing import HELD_OUT, STYLES, Floats, Integers, caption, digits_of, draw
from cl_steps.demo.train_extractor import image_embeddings, text_embeddings
from cl_steps.demo.train_vae import to_pixels

HERE = Path(drawing.__file__).parent
BASE = HERE / "base"
EXTRACTOR = HERE / "extractor"
GUIDANCE = 2.0
AT_ONCE = 100


@dataclass(frozen=True)
class Verdict:
    """What each of N pictures shows: its digit (N,) and the place of its style in `STYLES` (N,)."""

    digits: Integers
    styles: Integers

    def shares(self, digits: Integers, style: str) -> tuple[float, float]:
        """The share of pictures that show their digit, and the share that show the style."""
        return float(np.mean(self.digits == digits)), float(np.mean(self.styles == list(STYLES).index(style)))

    def share_right(self, digits: Integers, style: str) -> float:
        """The share of pictures that show both."""
        return float(np.mean((self.digits == digits) & (self.styles == list(STYLES).index(style))))


class Judge:
    """A feature extractor and the 50 captions it chooses among."""

    def __init__(self, folder: Path = EXTRACTOR) -> None:
        self.model = CLIPModel.from_pretrained(folder, local_files_only=True).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        self.captions = self.describe([caption(digit, style) for style in STYLES for digit in range(10)])

    @torch.no_grad()
    def describe(self, texts: list[str]) -> Tensor:
        """Unit vectors (N, 64) of texts."""
        return text_embeddings(self.model, self.tokenizer(texts, padding="max_length", return_tensors="pt").input_ids)

    @torch.no_grad()
    def look_at(self, pictures: NDArray[Any]) -> Tensor:
        """Unit vectors (N, 64) of pictures."""
        floats: Floats = pictures.astype(np.float32)
        if pictures.dtype == np.uint8:
            floats = floats / np.float32(255)
        return torch.cat([image_embeddings(self.model, part) for part in torch.split(to_pixels(floats), AT_ONCE)])

    def verdict(self, pictures: NDArray[Any]) -> Verdict:
        """The caption that fits each picture best."""
        rows = (self.look_at(pictures) @ self.captions.T).argmax(dim=1).numpy()
        return Verdict(rows % 10, rows // 10)


def held_out_pictures(style: str, count: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Integers]:
    """`count` drawings (count, 32, 32, 3) of held-out strokes in a style, and their digits (count,)."""
    chosen = rng.choice(HELD_OUT, count, replace=False)
    return np.stack([draw(int(index), style, rng) for index in chosen]), digits_of(chosen)


def sample(pipeline: StableDiffusionPipeline, style: str, count: int, steps: int, seed: int) -> tuple[Floats, Integers]:
    """`count` pictures (count, 32, 32, 3) of the digits 0, 1, 2 and so on, drawn by a pipeline in a style."""
    digits = np.arange(count) % 10
    pictures: list[Floats] = []
    noise = torch.Generator().manual_seed(seed)
    for part in np.array_split(digits, range(AT_ONCE, count, AT_ONCE)):
        prompts = [caption(int(digit), style) for digit in part]
        drawn = pipeline(prompts, num_inference_steps=steps, guidance_scale=GUIDANCE, generator=noise, output_type="np")
        pictures.append(drawn.images)
    return np.concatenate(pictures), digits
