"""The models of the trial: real configurations with random weights, made where they compute and never written.

REAL has the sizes of the published models; MINIATURE the same parts, small enough for a CPU in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from cl_steps.models.family import derive
from cl_steps.models.model import Denoiser
from tests.models import texts
from tests.models.zoo import schedules
from tests.models.zoo.tiny import assemble

Parts = Mapping[str, Mapping[str, Any]]
"""The arguments of each part's class, by the part's name in the pipeline."""
Hold = Callable[[nn.Module], None]
NETWORKS = ("unet", "transformer")


@dataclass(frozen=True)
class Model:
    """A pipeline to be made, the width and height of its pictures, and how many a step learns from."""

    make: Callable[[Parts, Any], DiffusionPipeline]
    scheduler: Callable[[], Any]
    parts: Parts
    side: int
    batch: int

    def build(self, device: torch.device, dtype: torch.dtype, hold: Hold | None = None) -> DiffusionPipeline:
        """Frozen, in a precision, the autoencoder in float32: as `load_pipeline` gives one; each weight has a say.

        `hold` puts the weights of the denoising network into fewer bits.
        """
        torch.manual_seed(0)
        scheduler = self.scheduler()  # which keeps its numbers on the CPU
        with torch.device(device):
            pipeline = self.make(self.parts, scheduler)
        for name, part in pipeline.components.items():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).to(torch.float32 if name == "vae" else dtype)
            if hold and name in NETWORKS:
                hold(part)
        return pipeline

    def open(self, device: torch.device, dtype: torch.dtype, hold: Hold | None = None) -> Denoiser:
        """Such a pipeline as `open_denoiser` opens a folder."""
        pipeline = self.build(device, dtype, hold)
        return Denoiser(pipeline, device, dtype, derive(pipeline, device, (self.side, self.side)))


def _stable(parts: Parts, scheduler: Any) -> DiffusionPipeline:
    encoder, tokenizer = _clip(CLIPTextModel, parts["text_encoder"])
    return assemble(
        StableDiffusionPipeline,
        vae=AutoencoderKL(**parts["vae"]),
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(**parts["unet"]),
        scheduler=scheduler,
        requires_safety_checker=False,
    )


def _stable_xl(parts: Parts, scheduler: Any) -> DiffusionPipeline:
    encoder, tokenizer = _clip(CLIPTextModel, parts["text_encoder"])
    encoder_2, tokenizer_2 = _clip(CLIPTextModelWithProjection, parts["text_encoder_2"])
    return assemble(
        StableDiffusionXLPipeline,
        vae=AutoencoderKL(**parts["vae"]),
        text_encoder=encoder,
        tokenizer=tokenizer,
        text_encoder_2=encoder_2,
        tokenizer_2=tokenizer_2,
        unet=UNet2DConditionModel(**parts["unet"]),
        scheduler=scheduler,
        add_watermarker=False,
    )


def _flux(parts: Parts, scheduler: Any) -> DiffusionPipeline:
    encoder, tokenizer = _clip(CLIPTextModel, parts["text_encoder"])
    tokenizer_2 = texts.t5_tokenizer()
    return assemble(
        FluxPipeline,
        vae=AutoencoderKL(**parts["vae"]),
        text_encoder=encoder,
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(T5Config(**parts["text_encoder_2"])),
        tokenizer_2=tokenizer_2,
        transformer=FluxTransformer2DModel(**parts["transformer"]),
        scheduler=scheduler,
    )


def _clip(kind: type[nn.Module], sizes: Mapping[str, Any]) -> tuple[nn.Module, Any]:
    """A text encoder, and a tokenizer with a few of its tokens that pads to as many as it reads."""
    tokenizer = texts.clip_tokenizer()
    tokenizer.model_max_length = sizes["max_position_embeddings"]
    marks = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return kind(CLIPTextConfig(**sizes, **marks)), tokenizer


def _text(width: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    sizes |= {"num_attention_heads": heads, "projection_dim": width, "vocab_size": 49408}
    return {**sizes, "max_position_embeddings": 77, **more}


def _vae(widths: tuple[int, ...], **more: Any) -> dict[str, Any]:
    levels = {
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
    }
    return {"block_out_channels": widths, "layers_per_block": 2, "latent_channels": 4, **levels, **more}


CROSS = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
XL_BLOCKS = {
    "down_block_types": ("DownBlock2D", CROSS[0], CROSS[0]),
    "up_block_types": (CROSS[1], CROSS[1], "UpBlock2D"),
    "addition_embed_type": "text_time",
    "use_linear_projection": True,
}
UNSHIFTED = {"use_quant_conv": False, "use_post_quant_conv": False, "scaling_factor": 0.3611, "shift_factor": 0.1159}
SMALL = {"norm_num_groups": 2, "layers_per_block": 1}

REAL: Mapping[str, Model] = {
    "SDXL": Model(
        _stable_xl,
        schedules.euler,
        {
            "unet": {
                **XL_BLOCKS,
                "sample_size": 128,
                "block_out_channels": (320, 640, 1280),
                "transformer_layers_per_block": (1, 2, 10),
                "attention_head_dim": (5, 10, 20),
                "cross_attention_dim": 2048,
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
            },
            "vae": _vae((128, 256, 512, 512), scaling_factor=0.13025, sample_size=1024),
            "text_encoder": _text(768, 12, 12, hidden_act="quick_gelu"),
            "text_encoder_2": _text(1280, 32, 20, hidden_act="gelu"),
        },
        side=1024,
        batch=4,
    ),
    "SD 1.5": Model(
        _stable,
        schedules.pndm,
        {
            "unet": {"sample_size": 64, "cross_attention_dim": 768},
            "vae": _vae((128, 256, 512, 512), sample_size=512),
            "text_encoder": _text(768, 12, 12, hidden_act="quick_gelu"),
        },
        side=512,
        batch=4,
    ),
    # Flux.1's blocks, of which it has 19 and 38; of T5-XXL one layer of 24: captions are encoded once.
    "Flux of 2 B": Model(
        _flux,
        schedules.flow_by_size,
        {
            "transformer": {"num_layers": 3, "num_single_layers": 7, "guidance_embeds": True},
            "vae": _vae((128, 256, 512, 512), latent_channels=16, sample_size=1024, **UNSHIFTED),
            "text_encoder": _text(768, 12, 12, hidden_act="quick_gelu"),
            "text_encoder_2": {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 1, "num_heads": 64,
                               "feed_forward_proj": "gated-gelu"},
        },
        side=1024,
        batch=2,
    ),
}  # fmt: skip

MINIATURE: Mapping[str, Model] = {
    "SDXL": Model(
        _stable_xl,
        schedules.euler,
        {
            "unet": {
                **XL_BLOCKS,
                **SMALL,
                "sample_size": 8,
                "block_out_channels": (8, 16, 16),
                "transformer_layers_per_block": (1, 1, 2),
                "attention_head_dim": (1, 2, 2),
                "cross_attention_dim": 64,
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 6 * 8 + 32,
            },
            "vae": _vae((4, 8), **SMALL, scaling_factor=0.13025, sample_size=16),
            "text_encoder": _text(32, 2, 4),
            "text_encoder_2": _text(32, 2, 4),
        },
        side=16,
        batch=2,
    ),
    "SD 1.5": Model(
        _stable,
        schedules.pndm,
        {
            "unet": {**SMALL, "sample_size": 8, "block_out_channels": (8, 8, 16, 16), "attention_head_dim": 2,
                     "cross_attention_dim": 32},
            "vae": _vae((4, 8), **SMALL, sample_size=16),
            "text_encoder": _text(32, 2, 4),
        },
        side=16,
        batch=2,
    ),
    "Flux of 2 B": Model(
        _flux,
        schedules.flow_by_size,
        {
            "transformer": {"in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
                            "num_attention_heads": 2, "joint_attention_dim": 32, "pooled_projection_dim": 32,
                            "guidance_embeds": True, "axes_dims_rope": (4, 4, 8)},
            "vae": _vae((4, 8), **SMALL | UNSHIFTED, sample_size=16),
            "text_encoder": _text(32, 2, 4),
            "text_encoder_2": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4,
                               "feed_forward_proj": "gated-gelu"},
        },
        side=16,
        batch=2,
    ),
}  # fmt: skip
"""By the same names; none keeps more than a few thousand weights outside its embeddings of tokens."""
