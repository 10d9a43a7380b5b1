"""Trains the demonstration's two models from nothing and writes them as folders that any Hugging Face loader reads.

    python -m cl_steps.demo.train base cl_steps/demo/base --seed 0
    python -m cl_steps.demo.train extractor cl_steps/demo/extractor --seed 0

Weights are stored in 16 bits and load as 32 bits. About a quarter of an hour on one core.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPImageProcessorPil, CLIPProcessor

from cl_steps.demo.drawing import SIDE
from cl_steps.demo.train_denoiser import train_denoiser
from cl_steps.demo.train_extractor import fit_extractor
from cl_steps.demo.train_vae import train_vae
from cl_steps.demo.vocabulary import build_tokenizer

BASE_CARD = """---
license: apache-2.0
---
# A pipeline that draws digits

A `StableDiffusionPipeline` of 1.6 million parameters that draws handwritten digits in black, sepia and blue ink at
32x32 pixels, made from nothing by `python -m cl_steps.demo.train base` out of 797 of scikit-learn's digits
(`load_digits`, UCI, CC BY 4.0). Prompt: "a handwritten three in blue ink". Neon ink and white chalk it has never
drawn: those it is meant to be taught.
"""
EXTRACTOR_CARD = """# A CLIP for drawn digits

A `CLIPModel` of half a million parameters for 32x32 pictures of handwritten digits in ink of any colour, made from
nothing by `python -m cl_steps.demo.train extractor` out of 797 of scikit-learn's digits (`load_digits`, UCI, CC BY
4.0). It stands in for a general-purpose CLIP and is of no use for other pictures.
"""


@dataclass(frozen=True)
class BaseEffort:
    """Steps of the autoencoder, steps of the denoiser, and pictures of each stroke that the denoiser sees."""

    vae_steps: int = 1000
    denoiser_steps: int = 3000
    copies: int = 6


@dataclass(frozen=True)
class ExtractorEffort:
    """Steps, and wobbled copies of each stroke."""

    steps: int = 1800
    copies: int = 12


def train_base(out: Path, seed: int, effort: BaseEffort = BaseEffort()) -> None:
    """Writes a `StableDiffusionPipeline` that draws digits in the three base styles into the folder `out`."""
    with torch.random.fork_rng():
        vae = train_vae(seed, effort.vae_steps)
        tokenizer = build_tokenizer()
        parts = train_denoiser(vae, tokenizer, seed, effort.denoiser_steps, effort.copies)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=parts.text_encoder,
        tokenizer=tokenizer,
        unet=parts.unet,
        scheduler=parts.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(out)
    _load_in_32_bits(out / "text_encoder")
    (out / "README.md").write_text(BASE_CARD)
    _let_all_read(out)


def train_extractor(out: Path, seed: int, effort: ExtractorEffort = ExtractorEffort()) -> None:
    """Writes a `CLIPModel` with its processor into the folder `out`."""
    tokenizer = build_tokenizer()
    with torch.random.fork_rng():
        model = fit_extractor(tokenizer, seed, effort.steps, effort.copies)
    processor = CLIPImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    model.half().save_pretrained(out)
    CLIPProcessor(image_processor=processor, tokenizer=tokenizer).save_pretrained(out)
    _load_in_32_bits(out)
    (out / "README.md").write_text(EXTRACTOR_CARD)
    _let_all_read(out)


def _load_in_32_bits(folder: Path) -> None:
    """Names 32 bits in a transformers configuration, which otherwise loads weights in the precision they are kept."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for part in (config, config.get("text_config", {}), config.get("vision_config", {})):
        if "dtype" in part:
            part["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _let_all_read(folder: Path) -> None:
    """safetensors writes files that only their owner may read, which a container under another user cannot load."""
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Train a model of the demonstration from nothing.")
    parser.add_argument("model", choices=("base", "extractor"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.model == "base":
        train_base(arguments.out, arguments.seed)
    else:
        train_extractor(arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
