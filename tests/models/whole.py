"""Whole tiny pipelines, text encoders and tokenizers included: folders that `DiffusionPipeline.from_pretrained` loads.

Each network has between nine thousand and half a million random weights; images of 16 or 32 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from diffusers import (
    DiffusionPipeline,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    WanPipeline,
    WanTransformer3DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from tests.models import texts
from tests.models.texts import WIDTH
from tests.models.zoo import autoencoders, schedules
from tests.models.zoo.tiny import assemble, seeded


def _xl() -> DiffusionPipeline:
    tokenizer = texts.clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=2 * WIDTH,
        attention_head_dim=4,
        transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        use_linear_projection=True,
    )
    return assemble(
        StableDiffusionXLPipeline,
        vae=autoencoders.kl(4, scaling_factor=0.13025),
        text_encoder=texts.clip(tokenizer),
        text_encoder_2=texts.clip_projected(tokenizer),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=schedules.euler(),
        add_watermarker=False,
    )


def _three() -> DiffusionPipeline:
    tokenizer, tokenizer_3 = texts.clip_tokenizer(), texts.t5_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=16,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=2 * WIDTH,
        pooled_projection_dim=2 * WIDTH,
        out_channels=4,
        pos_embed_max_size=16,
    )
    return assemble(
        StableDiffusion3Pipeline,
        transformer=transformer,
        scheduler=schedules.flow(3.0),
        vae=autoencoders.kl_shifted(4),
        text_encoder=texts.clip_projected(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=texts.clip_projected(tokenizer),
        tokenizer_2=tokenizer,
        text_encoder_3=texts.t5(tokenizer_3, width=2 * WIDTH),
        tokenizer_3=tokenizer_3,
    )


def _flux() -> DiffusionPipeline:
    tokenizer, tokenizer_2 = texts.clip_tokenizer(), texts.t5_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )
    return assemble(
        FluxPipeline,
        scheduler=schedules.flow_by_size(),
        vae=autoencoders.kl_shifted(4),
        text_encoder=texts.clip(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=texts.t5(tokenizer_2),
        tokenizer_2=tokenizer_2,
        transformer=transformer,
    )


def _flux2() -> DiffusionPipeline:
    tokenizer = texts.mistral_tokenizer()
    return assemble(
        Flux2Pipeline,
        scheduler=schedules.flow_by_size(),
        vae=autoencoders.flux2(4),
        text_encoder=texts.mistral_deep(tokenizer),
        tokenizer=tokenizer,
        transformer=_flux2_transformer(guidance_embeds=True),
    )


def _flux2_klein() -> DiffusionPipeline:
    tokenizer = texts.qwen_tokenizer()
    return assemble(
        Flux2KleinPipeline,
        scheduler=schedules.flow_by_size(),
        vae=autoencoders.flux2(4),
        text_encoder=texts.qwen3_deep(tokenizer),
        tokenizer=tokenizer,
        transformer=_flux2_transformer(guidance_embeds=False),
    )


def _flux2_transformer(guidance_embeds: bool) -> Flux2Transformer2DModel:
    return Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )


def _qwen_image() -> DiffusionPipeline:
    tokenizer = texts.qwen_tokenizer()
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
        QwenImagePipeline,
        scheduler=schedules.flow_qwen(),
        vae=autoencoders.qwen(4),
        text_encoder=texts.qwen25_vl(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def _z_image() -> DiffusionPipeline:
    tokenizer = texts.qwen_tokenizer()
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
    return assemble(
        ZImagePipeline,
        scheduler=schedules.flow(3.0),
        vae=autoencoders.kl(4, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=texts.qwen3(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def _wan() -> DiffusionPipeline:
    tokenizer = texts.t5_tokenizer()
    transformer = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=WIDTH,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        rope_max_seq_len=32,
    )
    return assemble(
        WanPipeline,
        tokenizer=tokenizer,
        text_encoder=texts.umt5(tokenizer),
        vae=autoencoders.wan(4),
        scheduler=schedules.flow_unipc(),
        transformer=transformer,
    )


def _writer(build: Callable[[], DiffusionPipeline]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        seeded(build)().save_pretrained(folder)

    return write


WHOLE: Mapping[str, Callable[[Path], None]] = {
    "StableDiffusionXLPipeline": _writer(_xl),
    "StableDiffusion3Pipeline": _writer(_three),
    "FluxPipeline": _writer(_flux),
    "Flux2Pipeline": _writer(_flux2),
    "Flux2KleinPipeline": _writer(_flux2_klein),
    "QwenImagePipeline": _writer(_qwen_image),
    "ZImagePipeline": _writer(_z_image),
    "WanPipeline": _writer(_wan),
}
"""By the class's name, what writes such a folder; the same bytes each time."""
