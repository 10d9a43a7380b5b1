"""Pipelines that draw videos, each with an autoencoder of its own."""

from __future__ import annotations

from diffusers import (
    AllegroPipeline,
    AllegroTransformer3DModel,
    ClassifierFreeGuidance,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    CosmosTextToWorldPipeline,
    DiffusionPipeline,
    EasyAnimatePipeline,
    EasyAnimateTransformer3DModel,
    EDMEulerScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    Kandinsky5T2VPipeline,
    Kandinsky6TI2VAPipeline,
    Kandinsky6Transformer3DModel,
    LattePipeline,
    LatteTransformer3DModel,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
    LTXConditionPipeline,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors

from tests.models.zoo import autoencoders, schedules
from tests.models.zoo.captions import TOKENS, WIDTH, hunyuan_image_text, kandinsky5_text, masked_text, pooled_text, text
from tests.models.zoo.cosmos import Trusting, cosmos_transformer
from tests.models.zoo.tiny import Tiny, assemble, seeded
from tests.models.zoo.unpacked import kandinsky5_transformer


@seeded
def _ltx() -> DiffusionPipeline:
    scheduler = schedules.flow(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, shift_terminal=0.1
    )
    return assemble(LTXPipeline, transformer=_ltx_transformer(), vae=autoencoders.ltx(8), scheduler=scheduler)


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


def _ltx_transformer() -> LTXVideoTransformer3DModel:
    return LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=2,
        caption_channels=WIDTH,
    )


@seeded
def _hunyuan_video15() -> DiffusionPipeline:
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        text_embed_dim=WIDTH,
        text_embed_2_dim=WIDTH,
        image_embed_dim=12,
        rope_axes_dim=(2, 2, 4),
        target_size=16,
        task_type="t2v",
    )
    return assemble(
        HunyuanVideo15Pipeline,
        transformer=transformer,
        vae=autoencoders.hunyuan_video15(4),
        scheduler=schedules.flow(7.0),
        guider=ClassifierFreeGuidance(guidance_scale=1.0),
    )


@seeded
def _kandinsky5_video() -> DiffusionPipeline:
    return assemble(
        Kandinsky5T2VPipeline,
        transformer=kandinsky5_transformer(),
        vae=autoencoders.hunyuan_video(4),
        scheduler=schedules.flow(5.0),
    )


@seeded
def _kandinsky6() -> DiffusionPipeline:
    transformer = Kandinsky6Transformer3DModel(
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=WIDTH,
        in_text_dim2=WIDTH,
        time_dim=16,
        model_dim=16,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=2,
        axes_dims=(2, 2, 4),
    )
    return assemble(
        Kandinsky6TI2VAPipeline,
        transformer=transformer,
        vae=autoencoders.hunyuan_video(4),
        scheduler=schedules.flow(5.0),
    )


@seeded
def _cogvideo() -> DiffusionPipeline:
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=WIDTH,
        num_layers=2,
        sample_width=2,
        sample_height=2,
        sample_frames=9,
        max_text_seq_length=TOKENS,
    )
    scheduler = CogVideoXDDIMScheduler(
        rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing", snr_shift_scale=3.0
    )
    return assemble(CogVideoXPipeline, transformer=transformer, vae=autoencoders.cogvideo(4), scheduler=scheduler)


@seeded
def _allegro() -> DiffusionPipeline:
    transformer = AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        cross_attention_dim=24,
        sample_width=8,
        sample_height=8,
        sample_frames=8,
        caption_channels=WIDTH,
    )
    vae = autoencoders.allegro(4)
    return assemble(AllegroPipeline, transformer=transformer, vae=vae, scheduler=schedules.ancestral())


@seeded
def _mochi() -> DiffusionPipeline:
    transformer = MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=12,
        text_embed_dim=WIDTH,
        time_embed_dim=4,
        max_sequence_length=16,
    )
    return assemble(
        MochiPipeline,
        transformer=transformer,
        vae=autoencoders.mochi(),
        scheduler=schedules.flow(invert_sigmas=True),
    )


@seeded
def _easy_animate() -> DiffusionPipeline:
    transformer = EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=WIDTH,
        num_layers=2,
        sample_width=16,
        sample_height=16,
        patch_size=2,
    )
    return assemble(
        EasyAnimatePipeline, transformer=transformer, vae=autoencoders.magvit(4), scheduler=schedules.flow(5.0)
    )


@seeded
def _latte() -> DiffusionPipeline:
    transformer = LatteTransformer3DModel(
        sample_size=8,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=WIDTH,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        video_length=2,
    )
    return assemble(LattePipeline, transformer=transformer, vae=autoencoders.kl(4), scheduler=schedules.ddim())


@seeded
def _cosmos() -> DiffusionPipeline:
    scheduler = EDMEulerScheduler(sigma_max=80, sigma_data=0.5, sigma_schedule="karras", final_sigmas_type="sigma_min")
    return assemble(
        CosmosTextToWorldPipeline,
        transformer=cosmos_transformer(),
        vae=autoencoders.cosmos(4),
        scheduler=scheduler,
        safety_checker=Trusting(),
    )


@seeded
def _ltx_condition() -> DiffusionPipeline:
    return assemble(
        LTXConditionPipeline,
        transformer=_ltx_transformer(),
        vae=autoencoders.ltx(8),
        scheduler=schedules.flow(3.0),
    )


@seeded
def _ltx2() -> DiffusionPipeline:
    transformer = LTX2VideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        audio_in_channels=4,
        audio_out_channels=4,
        audio_num_attention_heads=2,
        audio_attention_head_dim=4,
        audio_cross_attention_dim=8,
        num_layers=2,
        caption_channels=WIDTH,
        rope_double_precision=False,
        rope_type="split",
    )
    connector = {
        f"{kind}_connector_{name}": value
        for kind in ("video", "audio")
        for name, value in {
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_layers": 1,
            "num_learnable_registers": None,
        }.items()
    }
    connectors = LTX2TextConnectors(
        caption_channels=WIDTH,
        text_proj_in_factor=1,
        connector_rope_base_seq_len=32,
        rope_double_precision=False,
        rope_type="split",
        **connector,
    )
    return assemble(
        LTX2Pipeline,
        transformer=transformer,
        connectors=connectors,
        vae=autoencoders.ltx2(4),
        audio_vae=autoencoders.ltx2_audio(),
        vocoder=autoencoders.ltx2_vocoder(),
        scheduler=schedules.flow_by_size(shift_terminal=0.1),
    )


SIXTEENTHS = ((16, 16), (32, 16))
WIDE = ((32, 32), (64, 32))
FIVE = {"num_frames": 5}
LTX2_PLAIN = {
    "stg_scale": 0.0,
    "modality_scale": 1.0,
    "guidance_rescale": 0.0,
    "audio_guidance_scale": 1.0,
    "audio_stg_scale": 0.0,
    "audio_modality_scale": 1.0,
    "audio_guidance_rescale": 0.0,
    "spatio_temporal_guidance_blocks": None,
}

VIDEOS = {
    "LTXPipeline": Tiny(_ltx, masked_text, WIDE, FIVE),
    "LTXConditionPipeline": Tiny(_ltx_condition, masked_text, WIDE, FIVE),
    "LTX2Pipeline": Tiny(_ltx2, masked_text, WIDE, FIVE | LTX2_PLAIN),
    "HunyuanVideoPipeline": Tiny(_hunyuan_video, _hunyuan_text, SIXTEENTHS, FIVE),
    "HunyuanVideo15Pipeline": Tiny(_hunyuan_video15, hunyuan_image_text, SIXTEENTHS, FIVE),
    "Kandinsky5T2VPipeline": Tiny(_kandinsky5_video, kandinsky5_text, WIDE, FIVE),
    "Kandinsky6TI2VAPipeline": Tiny(_kandinsky6, pooled_text, WIDE, FIVE | {"sample_audio": False}),
    "CogVideoXPipeline": Tiny(_cogvideo, text, SIXTEENTHS, FIVE),
    "AllegroPipeline": Tiny(_allegro, masked_text, SIXTEENTHS, {"num_frames": 8}),
    "MochiPipeline": Tiny(_mochi, masked_text, SIXTEENTHS, {"num_frames": 7}),
    "EasyAnimatePipeline": Tiny(_easy_animate, masked_text, SIXTEENTHS, FIVE),
    "LattePipeline": Tiny(_latte, text, SIXTEENTHS, {"video_length": 2, "mask_feature": False}),
    "CosmosTextToWorldPipeline": Tiny(_cosmos, text, SIXTEENTHS, FIVE),
}
