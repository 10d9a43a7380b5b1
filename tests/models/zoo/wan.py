"""Pipelines with Wan's autoencoder: Wan, and those that took it over."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AnyFlowPipeline,
    AnyFlowTransformer3DModel,
    ClassifierFreeGuidance,
    Cosmos2_5_PredictBasePipeline,
    Cosmos2TextToImagePipeline,
    DiffusionPipeline,
    FlowMapEulerDiscreteScheduler,
    HeliosPipeline,
    HeliosScheduler,
    HeliosTransformer3DModel,
    MotifVideoPipeline,
    MotifVideoTransformer3DModel,
    SanaVideoPipeline,
    SanaVideoTransformer3DModel,
    SkyReelsV2DiffusionForcingPipeline,
    SkyReelsV2Pipeline,
    SkyReelsV2Transformer3DModel,
    WanPipeline,
    WanTransformer3DModel,
)

from tests.models.zoo import autoencoders, schedules
from tests.models.zoo.captions import WIDTH, masked_text, text
from tests.models.zoo.cosmos import Trusting, cosmos_transformer
from tests.models.zoo.tiny import Tiny, assemble, seeded


def wan_transformer(**changes: object) -> WanTransformer3DModel:
    """Of Wan."""
    return WanTransformer3DModel(**_wan_sizes() | changes)


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
def _wan_5b() -> DiffusionPipeline:
    return assemble(
        WanPipeline,
        transformer=wan_transformer(),
        expand_timesteps=True,
        vae=autoencoders.wan_16(4),
        scheduler=schedules.flow_unipc(5.0),
    )


@seeded
def _any_flow() -> DiffusionPipeline:
    return assemble(
        AnyFlowPipeline,
        transformer=AnyFlowTransformer3DModel(**_wan_sizes(), gate_value=0.25, deltatime_type="r"),
        vae=autoencoders.wan(4),
        scheduler=FlowMapEulerDiscreteScheduler(shift=5.0),
    )


@seeded
def _sky_reels() -> DiffusionPipeline:
    return assemble(
        SkyReelsV2Pipeline,
        transformer=SkyReelsV2Transformer3DModel(**_wan_sizes()),
        vae=autoencoders.wan(4),
        scheduler=schedules.flow_unipc(8.0),
    )


@seeded
def _sky_reels_forcing() -> DiffusionPipeline:
    return assemble(
        SkyReelsV2DiffusionForcingPipeline,
        transformer=SkyReelsV2Transformer3DModel(**_wan_sizes()),
        vae=autoencoders.wan(4),
        scheduler=schedules.flow_unipc(8.0),
    )


@seeded
def _helios() -> DiffusionPipeline:
    transformer = HeliosTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=WIDTH,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        rope_dim=(4, 4, 4),
    )
    scheduler = HeliosScheduler(stage_range=[0, 1], stages=1, use_dynamic_shifting=True)
    return assemble(HeliosPipeline, transformer=transformer, vae=autoencoders.wan(4), scheduler=scheduler)


@seeded
def _sana_video() -> DiffusionPipeline:
    transformer = SanaVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=WIDTH,
        mlp_ratio=2.5,
        sample_size=8,
        rope_max_seq_len=32,
    )
    return assemble(SanaVideoPipeline, transformer=transformer, vae=autoencoders.wan(4), scheduler=schedules.flow_dpm())


@seeded
def _motif() -> DiffusionPipeline:
    transformer = MotifVideoTransformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        num_single_layers=1,
        patch_size=1,
        text_embed_dim=WIDTH,
        rope_axes_dim=(4, 4, 4),
    )
    return assemble(
        MotifVideoPipeline,
        transformer=transformer,
        vae=autoencoders.wan(4),
        scheduler=schedules.flow(7.0),
        guider=ClassifierFreeGuidance(guidance_scale=1.0),
    )


@seeded
def _cosmos2_image() -> DiffusionPipeline:
    return assemble(
        Cosmos2TextToImagePipeline,
        transformer=cosmos_transformer(),
        vae=autoencoders.wan(4),
        scheduler=schedules.flow_edm(),
        safety_checker=Trusting(),
    )


@seeded
def _cosmos25() -> DiffusionPipeline:
    return assemble(
        Cosmos2_5_PredictBasePipeline,
        transformer=cosmos_transformer(in_channels=5),
        vae=autoencoders.wan(4),
        scheduler=schedules.flow_unipc(),
        safety_checker=Trusting(),
    )


def _wan_sizes() -> dict[str, Any]:
    return {
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


SIXTEENTHS = ((16, 16), (32, 16))
FIVE = {"num_frames": 5}

WAN = {
    "WanPipeline": Tiny(_wan, text, SIXTEENTHS, FIVE),
    "WanPipeline (2.2)": Tiny(_wan_22, text, SIXTEENTHS, FIVE),
    "WanPipeline (2.2, 5B)": Tiny(_wan_5b, text, ((32, 32), (64, 32)), FIVE),
    "AnyFlowPipeline": Tiny(_any_flow, text, SIXTEENTHS, FIVE),
    "SkyReelsV2Pipeline": Tiny(_sky_reels, text, SIXTEENTHS, FIVE),
    "SkyReelsV2DiffusionForcingPipeline": Tiny(_sky_reels_forcing, text, SIXTEENTHS, FIVE | {"prompt": None}),
    "HeliosPipeline": Tiny(_helios, text, SIXTEENTHS, FIVE),
    "SanaVideoPipeline": Tiny(
        _sana_video,
        masked_text,
        ((32, 32), (64, 32)),
        {"frames": 5, "negative_prompt": None, "use_resolution_binning": False},
    ),
    "MotifVideoPipeline": Tiny(_motif, masked_text, SIXTEENTHS, FIVE),
    "Cosmos2TextToImagePipeline": Tiny(_cosmos2_image, text, SIXTEENTHS),
    "Cosmos2_5_PredictBasePipeline": Tiny(_cosmos25, text, SIXTEENTHS, FIVE),
}
