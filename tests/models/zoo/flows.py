"""Transformers with rectified flow that draw images: Flux and what came after it."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    ChromaPipeline,
    ChromaTransformer2DModel,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    DiffusionPipeline,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from tests.models.zoo import autoencoders, schedules
from tests.models.zoo.tiny import Tiny, assemble, listed, mask, rows, seeded

TOKENS = 6
WIDTH = 16


def text(number: int) -> dict[str, object]:
    """A caption as embeddings alone."""
    return {"prompt_embeds": rows(number, TOKENS, WIDTH)}


def masked_text(number: int) -> dict[str, object]:
    """A caption as embeddings and which of them count."""
    return text(number) | {"prompt_attention_mask": mask(number, TOKENS)}


@seeded
def _flux() -> DiffusionPipeline:
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )
    return assemble(
        FluxPipeline,
        transformer=transformer,
        vae=autoencoders.kl_shifted(4),
        scheduler=schedules.flow_by_size(),
    )


def _flux_text(number: int) -> dict[str, object]:
    return text(number) | {"pooled_prompt_embeds": rows(number, WIDTH, seed=1)}


def flux2_transformer(**changes: object) -> Flux2Transformer2DModel:
    """Of Flux.2 and its small sister."""
    arguments: dict[str, object] = {
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDTH,
        "axes_dims_rope": (4, 4, 4, 4),
    }
    return Flux2Transformer2DModel(**arguments | changes)


@seeded
def _flux2_klein() -> DiffusionPipeline:
    return assemble(
        Flux2KleinPipeline,
        transformer=flux2_transformer(guidance_embeds=False),
        vae=autoencoders.flux2(4),
        scheduler=schedules.flow_by_size(),
    )


@seeded
def _qwen() -> DiffusionPipeline:
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
    )
    return assemble(
        QwenImagePipeline, transformer=transformer, vae=autoencoders.qwen(4), scheduler=schedules.flow_qwen()
    )


def _qwen_text(number: int) -> dict[str, object]:
    return text(number) | {"prompt_embeds_mask": mask(number, TOKENS)}


@seeded
def _z_image() -> DiffusionPipeline:
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    vae = autoencoders.kl(4, scaling_factor=0.3611, shift_factor=0.1159)
    return assemble(ZImagePipeline, transformer=transformer, vae=vae, scheduler=schedules.flow(3.0))


def _z_image_text(number: int) -> dict[str, object]:
    return {"prompt_embeds": [row[: TOKENS - place % 2] for place, row in enumerate(listed(number, TOKENS, WIDTH))]}


@seeded
def _sana() -> DiffusionPipeline:
    transformer = SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=WIDTH,
        sample_size=16,
    )
    return assemble(SanaPipeline, transformer=transformer, vae=autoencoders.dc(4), scheduler=schedules.flow_dpm())


@seeded
def _chroma() -> DiffusionPipeline:
    transformer = ChromaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        approximator_hidden_dim=32,
        approximator_layers=1,
        approximator_num_channels=16,
    )
    return assemble(
        ChromaPipeline, transformer=transformer, vae=autoencoders.kl_shifted(4), scheduler=schedules.flow(3.0)
    )


def _chroma_text(number: int) -> dict[str, object]:
    return text(number) | {"prompt_attention_mask": mask(number, TOKENS, torch.float32)}


@seeded
def _lumina2() -> DiffusionPipeline:
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=16,
        num_layers=2,
        num_attention_heads=1,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(8, 4, 4),
        cap_feat_dim=WIDTH,
    )
    return assemble(
        Lumina2Pipeline,
        transformer=transformer,
        vae=autoencoders.kl_shifted(4, levels=4),
        scheduler=schedules.flow(6.0),
    )


@seeded
def _aura_flow() -> DiffusionPipeline:
    transformer = AuraFlowTransformer2DModel(
        sample_size=16,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=WIDTH,
        out_channels=4,
        pos_embed_max_size=256,
    )
    return assemble(AuraFlowPipeline, transformer=transformer, vae=autoencoders.kl(4), scheduler=schedules.flow(1.73))


@seeded
def _cogview4() -> DiffusionPipeline:
    transformer = CogView4Transformer2DModel(
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        out_channels=4,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        condition_dim=4,
    )
    scheduler = schedules.flow(
        use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, base_image_seq_len=256, time_shift_type="linear"
    )
    return assemble(CogView4Pipeline, transformer=transformer, vae=autoencoders.kl(4), scheduler=scheduler)


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


NO_BINS = {"use_resolution_binning": False}
PROMPTLESS: dict[str, Any] = {"negative_prompt": None}

FLOWS = {
    "FluxPipeline": Tiny(_flux, _flux_text, ((16, 16), (24, 16))),
    "Flux2KleinPipeline": Tiny(_flux2_klein, text, ((16, 16), (24, 16))),
    "QwenImagePipeline": Tiny(_qwen, _qwen_text, ((32, 32), (48, 32))),
    "ZImagePipeline": Tiny(_z_image, _z_image_text, ((32, 32), (48, 32)), {"guidance_scale": 0.0}),
    "SanaPipeline": Tiny(_sana, masked_text, ((32, 32), (64, 32)), NO_BINS | PROMPTLESS),
    "ChromaPipeline": Tiny(_chroma, _chroma_text, ((16, 16), (24, 16))),
    "Lumina2Pipeline": Tiny(_lumina2, masked_text, ((32, 32), (48, 32))),
    "AuraFlowPipeline": Tiny(_aura_flow, masked_text, ((32, 32), (48, 32))),
    "CogView4Pipeline": Tiny(_cogview4, text, ((16, 16), (32, 16))),
    "PixArtSigmaPipeline": Tiny(_pixart_sigma, masked_text, ((16, 16), (24, 16)), NO_BINS | PROMPTLESS),
}
