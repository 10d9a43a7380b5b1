"""Transformers from before rectified flow: they predict the noise, or the velocity of it and the picture."""

from __future__ import annotations

from diffusers import (
    CogVideoXDDIMScheduler,
    CogView3PlusPipeline,
    CogView3PlusTransformer2DModel,
    DDPMScheduler,
    DiffusionPipeline,
    HunyuanDiT2DModel,
    HunyuanDiTPipeline,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)

from tests.models.zoo import autoencoders, schedules
from tests.models.zoo.captions import TOKENS, WIDTH, masked_text, text
from tests.models.zoo.tiny import Tiny, assemble, mask, rows, seeded


@seeded
def _pixart_alpha() -> DiffusionPipeline:
    return assemble(
        PixArtAlphaPipeline,
        transformer=pixart_transformer(),
        vae=autoencoders.kl(4),
        scheduler=schedules.dpm(),
    )


@seeded
def _pixart_sigma() -> DiffusionPipeline:
    return assemble(
        PixArtSigmaPipeline,
        transformer=pixart_transformer(),
        vae=autoencoders.kl(4, scaling_factor=0.13025),
        scheduler=schedules.dpm(),
    )


def pixart_transformer(**changes: object) -> PixArtTransformer2DModel:
    """Predicts the noise and its variance, which the pipeline leaves out."""
    arguments: dict[str, object] = {
        "sample_size": 8,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "caption_channels": WIDTH,
        "cross_attention_dim": 16,
    }
    return PixArtTransformer2DModel(**arguments | changes)


@seeded
def _cogview3() -> DiffusionPipeline:
    transformer = CogView3PlusTransformer2DModel(
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        out_channels=4,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        condition_dim=2,
        pos_embed_max_size=16,
        sample_size=8,
    )
    scheduler = CogVideoXDDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    return assemble(CogView3PlusPipeline, transformer=transformer, vae=autoencoders.kl(4), scheduler=scheduler)


@seeded
def _hunyuan_dit() -> DiffusionPipeline:
    transformer = HunyuanDiT2DModel(
        sample_size=16,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        cross_attention_dim=WIDTH,
        cross_attention_dim_t5=WIDTH,
        pooled_projection_dim=8,
        hidden_size=16,
        text_len=TOKENS,
        text_len_t5=TOKENS,
        activation_fn="gelu-approximate",
    )
    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.03,
        steps_offset=1,
        prediction_type="v_prediction",
        clip_sample=False,
    )
    vae = autoencoders.kl(4, levels=4, scaling_factor=0.13025)
    return assemble(
        HunyuanDiTPipeline, transformer=transformer, vae=vae, scheduler=scheduler, requires_safety_checker=False
    )


def _hunyuan_dit_text(number: int) -> dict[str, object]:
    return masked_text(number) | {
        "prompt_embeds_2": rows(number, TOKENS, WIDTH, seed=1),
        "prompt_attention_mask_2": mask(number, TOKENS),
    }


SMALL = ((16, 16), (24, 16))
NO_BINS = {"use_resolution_binning": False}
WITHOUT_NEGATIVE = {"negative_prompt": None}

NOISE = {
    "PixArtAlphaPipeline": Tiny(_pixart_alpha, masked_text, SMALL, NO_BINS | WITHOUT_NEGATIVE),
    "PixArtSigmaPipeline": Tiny(_pixart_sigma, masked_text, SMALL, NO_BINS | WITHOUT_NEGATIVE),
    "CogView3PlusPipeline": Tiny(_cogview3, text, ((16, 16), (32, 16))),
    "HunyuanDiTPipeline": Tiny(_hunyuan_dit, _hunyuan_dit_text, ((32, 32), (48, 32)), NO_BINS),
}
