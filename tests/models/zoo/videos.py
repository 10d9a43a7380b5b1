"""Pipelines that draw videos."""

from __future__ import annotations

from diffusers import (
    DiffusionPipeline,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    WanPipeline,
    WanTransformer3DModel,
)

from tests.models.zoo import autoencoders, schedules
from tests.models.zoo.captions import WIDTH, masked_text, pooled_text, text
from tests.models.zoo.tiny import Tiny, assemble, seeded


def wan_transformer(**changes: object) -> WanTransformer3DModel:
    """Of Wan, and of those that took it over."""
    arguments: dict[str, object] = {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 4,
        "out_channels": 4,
        "text_dim": WIDTH,
        "freq_dim": 32,
        "ffn_dim": 32,
        "num_layers": 2,
        "cross_attn_norm": True,
        "rope_max_seq_len": 32,
    }
    return WanTransformer3DModel(**arguments | changes)


@seeded
def _wan() -> DiffusionPipeline:
    return assemble(
        WanPipeline, transformer=wan_transformer(), vae=autoencoders.wan(4), scheduler=schedules.flow_unipc()
    )


@seeded
def _wan_22() -> DiffusionPipeline:
    return assemble(
        WanPipeline,
        transformer=wan_transformer(),
        transformer_2=wan_transformer(),
        boundary_ratio=0.875,
        vae=autoencoders.wan(4),
        scheduler=schedules.flow_unipc(),
    )


@seeded
def _ltx() -> DiffusionPipeline:
    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=2,
        caption_channels=WIDTH,
    )
    scheduler = schedules.flow(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, shift_terminal=0.1
    )
    return assemble(LTXPipeline, transformer=transformer, vae=autoencoders.ltx(8), scheduler=scheduler)


@seeded
def _hunyuan_video() -> DiffusionPipeline:
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        guidance_embeds=True,
        text_embed_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        rope_axes_dim=(2, 4, 4),
    )
    return assemble(
        HunyuanVideoPipeline,
        transformer=transformer,
        vae=autoencoders.hunyuan_video(4),
        scheduler=schedules.flow(7.0),
    )


def _hunyuan_text(number: int) -> dict[str, object]:
    return masked_text(number) | pooled_text(number)


VIDEOS = {
    "WanPipeline": Tiny(_wan, text, ((16, 16), (32, 16)), {"num_frames": 5}),
    "WanPipeline (2.2)": Tiny(_wan_22, text, ((16, 16), (32, 16)), {"num_frames": 5}),
    "LTXPipeline": Tiny(_ltx, masked_text, ((32, 32), (64, 32)), {"num_frames": 5}),
    "HunyuanVideoPipeline": Tiny(_hunyuan_video, _hunyuan_text, ((16, 16), (32, 16)), {"num_frames": 5}),
}
