"""Pipelines that take no embeddings: a caption is a text there, and its encoder a real one."""

from __future__ import annotations

from diffusers import (
    BriaFiboPipeline,
    BriaFiboTransformer2DModel,
    DiffusionPipeline,
    Ideogram4Pipeline,
    Ideogram4Transformer2DModel,
    LongCatImagePipeline,
    LongCatImageTransformer2DModel,
)

from tests.models import texts
from tests.models.zoo import autoencoders, schedules
from tests.models.zoo.tiny import Tiny, assemble, seeded

COLOURS = ("red", "green", "violet", "gold", "silver")


def prompts(number: int) -> dict[str, object]:
    """Captions of different lengths."""
    return {"prompt": [f"a {COLOURS[row % 5]}" + " digit" * (row % 3) for row in range(number)]}


@seeded
def _longcat() -> DiffusionPipeline:
    tokenizer = texts.qwen_tokenizer()
    transformer = LongCatImageTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=texts.WIDTH,
        axes_dims_rope=[4, 4, 8],
    )
    pipeline = assemble(
        LongCatImagePipeline,
        text_encoder=texts.qwen25_vl(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer,
        vae=autoencoders.kl_shifted(16),
        scheduler=schedules.flow_by_size(),
    )
    pipeline.tokenizer_max_length = 8
    return pipeline


@seeded
def _bria_fibo() -> DiffusionPipeline:
    tokenizer = texts.qwen_tokenizer()
    transformer = BriaFiboTransformer2DModel(
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * texts.WIDTH,
        text_encoder_dim=texts.WIDTH,
        axes_dims_rope=[0, 4, 4],
    )
    return assemble(
        BriaFiboPipeline,
        text_encoder=texts.smollm3(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer,
        vae=autoencoders.wan_16(4),
        scheduler=schedules.flow_by_size(),
    )


@seeded
def _ideogram() -> DiffusionPipeline:
    tokenizer = texts.qwen_tokenizer()
    return assemble(
        Ideogram4Pipeline,
        text_encoder=texts.qwen3_vl_deep(tokenizer),
        tokenizer=tokenizer,
        transformer=_ideogram_transformer(),
        unconditional_transformer=_ideogram_transformer(),
        vae=autoencoders.flux2(4),
        scheduler=schedules.flow(),
    )


def _ideogram_transformer() -> Ideogram4Transformer2DModel:
    return Ideogram4Transformer2DModel(
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        intermediate_size=32,
        adaln_dim=16,
        llm_features_dim=13 * texts.WIDTH,
        rope_theta=10_000,
        mrope_section=(2, 1, 1),
    )


PROMPTED = {
    "LongCatImagePipeline": Tiny(_longcat, prompts, ((16, 16), (24, 16)), {"enable_prompt_rewrite": False}),
    "BriaFiboPipeline": Tiny(_bria_fibo, prompts, ((32, 32), (48, 32))),
    "Ideogram4Pipeline": Tiny(
        _ideogram, prompts, ((16, 16), (24, 16)), {"guidance_schedule": None, "max_sequence_length": 32}
    ),
}
