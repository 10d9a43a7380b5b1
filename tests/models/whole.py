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
    FluxPipeline,
    QwenImagePipeline,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    WanPipeline,
    ZImagePipeline,
)

from tests.models import texts
from tests.models.texts import WIDTH
from tests.models.zoo import autoencoders, schedules
from tests.models.zoo.packed import flux2_transformer, flux_transformer, qwen_transformer
from tests.models.zoo.stable import text_time, three_transformer, unet
from tests.models.zoo.tiny import assemble, seeded
from tests.models.zoo.unpacked import z_image_transformer
from tests.models.zoo.wan import wan_transformer


def _xl() -> DiffusionPipeline:
    tokenizer = texts.clip_tokenizer()
    network = unet(
        **text_time(projection_class_embeddings_input_dim=6 * 8 + WIDTH),
        block_out_channels=(16, 32),
        norm_num_groups=8,
        cross_attention_dim=2 * WIDTH,
        transformer_layers_per_block=(1, 2),
    )
    return assemble(
        StableDiffusionXLPipeline,
        vae=autoencoders.kl(4, scaling_factor=0.13025),
        text_encoder=texts.clip(tokenizer),
        text_encoder_2=texts.clip_projected(tokenizer),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=network,
        scheduler=schedules.euler(),
        add_watermarker=False,
    )


def _three() -> DiffusionPipeline:
    tokenizer, tokenizer_3 = texts.clip_tokenizer(), texts.t5_tokenizer()
    return assemble(
        StableDiffusion3Pipeline,
        transformer=three_transformer(joint_attention_dim=2 * WIDTH, pooled_projection_dim=2 * WIDTH),
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
    return assemble(
        FluxPipeline,
        scheduler=schedules.flow_by_size(),
        vae=autoencoders.kl_shifted(4),
        text_encoder=texts.clip(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=texts.t5(tokenizer_2),
        tokenizer_2=tokenizer_2,
        transformer=flux_transformer(joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH),
    )


def _flux2() -> DiffusionPipeline:
    tokenizer = texts.mistral_tokenizer()
    return assemble(
        Flux2Pipeline,
        scheduler=schedules.flow_by_size(),
        vae=autoencoders.flux2(4),
        text_encoder=texts.mistral_deep(tokenizer),
        tokenizer=tokenizer,
        transformer=flux2_transformer(joint_attention_dim=3 * WIDTH, guidance_embeds=True),
    )


def _flux2_klein() -> DiffusionPipeline:
    tokenizer = texts.qwen_tokenizer()
    return assemble(
        Flux2KleinPipeline,
        scheduler=schedules.flow_by_size(),
        vae=autoencoders.flux2(4),
        text_encoder=texts.qwen3_deep(tokenizer),
        tokenizer=tokenizer,
        transformer=flux2_transformer(joint_attention_dim=3 * WIDTH, guidance_embeds=False),
    )


def _qwen_image() -> DiffusionPipeline:
    tokenizer = texts.qwen_tokenizer()
    return assemble(
        QwenImagePipeline,
        scheduler=schedules.flow_qwen(),
        vae=autoencoders.qwen(4),
        text_encoder=texts.qwen25_vl(tokenizer),
        tokenizer=tokenizer,
        transformer=qwen_transformer(joint_attention_dim=WIDTH),
    )


def _z_image() -> DiffusionPipeline:
    tokenizer = texts.qwen_tokenizer()
    return assemble(
        ZImagePipeline,
        scheduler=schedules.flow(3.0),
        vae=autoencoders.kl(4, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=texts.qwen3(tokenizer),
        tokenizer=tokenizer,
        transformer=z_image_transformer(cap_feat_dim=WIDTH),
    )


def _wan() -> DiffusionPipeline:
    tokenizer = texts.t5_tokenizer()
    return assemble(
        WanPipeline,
        tokenizer=tokenizer,
        text_encoder=texts.umt5(tokenizer),
        vae=autoencoders.wan(4),
        scheduler=schedules.flow_unipc(),
        transformer=wan_transformer(text_dim=WIDTH),
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
