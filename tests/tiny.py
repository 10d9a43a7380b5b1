"""A random Stable Diffusion pipeline and a random CLIP, small enough for any test (a few thousand weights each).

Both are genuine diffusers and transformers folders. The same arguments give the same bytes; global random state is
left alone.
"""

from __future__ import annotations

import json
import string
import tempfile
from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
)

from cl_steps.models.model import Denoiser

MAX_TOKENS = 8
WIDTH = 16
SIDE = 16
TARGET_MODULES = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "ff.net.2", "proj_in", "time_emb_proj")
"""Layers of the tiny UNet that an adapter can sit on: attention, a convolution, a feed-forward layer."""

Prediction = Literal["epsilon", "v_prediction", "sample"]


def make_tiny_pipeline(
    folder: Path, prediction_type: Prediction = "epsilon", seed: int = 0, *, channels: int = 4, side: int = SIDE
) -> Path:
    """Write a StableDiffusionPipeline folder: 16x16 images, latents (4, 8, 8), 8 tokens of text; returns `folder`.

    `channels` are those of the latents, `side` the images' width and height.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        pipeline = StableDiffusionPipeline(
            vae=_vae(channels),
            text_encoder=CLIPTextModel(_text_config(tokenizer)),
            tokenizer=tokenizer,
            unet=_unet(channels, side // 2),
            scheduler=_scheduler(prediction_type),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder)
    return folder


def make_tiny_clip(folder: Path, seed: int = 0) -> Path:
    """Write a CLIPModel folder (16x16 images, 16 features) with tokenizer and processor; returns `folder`."""
    tokenizer = tiny_tokenizer()
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 8,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = CLIPConfig(text_config=_text_config(tokenizer).to_dict(), vision_config=vision, projection_dim=WIDTH)
        CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, do_convert_rgb=True
    ).save_pretrained(folder)
    return folder


def disturb(denoiser: Denoiser, name: str, seed: int = 1, size: float = 0.1) -> None:
    """Give an adapter random weights."""
    random = torch.Generator().manual_seed(seed)
    denoiser.adapters.put(name, size * torch.randn(denoiser.adapters.flat(name).shape, generator=random))


def tiny_tokenizer() -> CLIPTokenizer:
    """A CLIPTokenizer whose tokens are single letters and digits."""
    letters = [*string.ascii_lowercase, *string.digits]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    with tempfile.TemporaryDirectory() as name:
        vocab, merges = Path(name, "vocab.json"), Path(name, "merges.txt")
        vocab.write_text(json.dumps({token: place for place, token in enumerate(tokens)}))
        merges.write_text("#version: 0.2\n")
        return CLIPTokenizer(str(vocab), str(merges), model_max_length=MAX_TOKENS)


def _text_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _vae(channels: int) -> AutoencoderKL:
    return AutoencoderKL(
        latent_channels=channels,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=(4, 8),
        layers_per_block=1,
        norm_num_groups=2,
        sample_size=SIDE,
        mid_block_add_attention=False,
    )


def _unet(channels: int, latent_side: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        in_channels=channels,
        out_channels=channels,
        sample_size=latent_side,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
        mid_block_type=None,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
    )


def _scheduler(prediction_type: Prediction) -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        prediction_type=prediction_type,
        timestep_spacing="trailing",
        steps_offset=1,
    )
