"""Stable Diffusion and what has its UNet."""

from __future__ import annotations

from diffusers import (
    DiffusionPipeline,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from tests.models.zoo import autoencoders, schedules
from tests.models.zoo.tiny import Tiny, assemble, rows, seeded

TOKENS = 7
WIDTH = 16


def unet(**changes: object) -> UNet2DConditionModel:
    """Latents of 4 channels in two levels, the lower one with attention to text."""
    arguments: dict[str, object] = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 4,
    }
    return UNet2DConditionModel(**arguments | changes)


def text_time(**changes: object) -> dict[str, object]:
    """What SDXL's UNet has besides: the pooled text and six sizes in the embedding of the timestep."""
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + WIDTH,
        "use_linear_projection": True,
    } | changes


def text(number: int) -> dict[str, object]:
    """A caption of Stable Diffusion."""
    return {"prompt_embeds": rows(number, TOKENS, WIDTH)}


def pooled_text(number: int) -> dict[str, object]:
    """A caption of Stable Diffusion XL and 3."""
    return text(number) | {"pooled_prompt_embeds": rows(number, WIDTH, seed=1)}


@seeded
def _stable_diffusion() -> DiffusionPipeline:
    return assemble(
        StableDiffusionPipeline,
        vae=autoencoders.kl(4),
        unet=unet(),
        scheduler=schedules.pndm(),
        requires_safety_checker=False,
    )


@seeded
def _xl() -> DiffusionPipeline:
    vae = autoencoders.kl(4, scaling_factor=0.13025)
    return assemble(
        StableDiffusionXLPipeline,
        vae=vae,
        unet=unet(**text_time()),
        scheduler=schedules.euler(),
        add_watermarker=False,
    )


@seeded
def _three() -> DiffusionPipeline:
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        out_channels=4,
        pos_embed_max_size=16,
    )
    return assemble(
        StableDiffusion3Pipeline,
        transformer=transformer,
        scheduler=schedules.flow(3.0),
        vae=autoencoders.kl_shifted(4),
    )


STABLE = {
    "StableDiffusionPipeline": Tiny(_stable_diffusion, text, ((16, 16), (24, 16))),
    "StableDiffusionXLPipeline": Tiny(_xl, pooled_text, ((16, 16), (24, 16))),
    "StableDiffusion3Pipeline": Tiny(_three, pooled_text, ((16, 16), (24, 16))),
}
