"""Stable Diffusion and what has its UNet."""

from __future__ import annotations

from diffusers import (
    AnimateDiffPipeline,
    AnimateDiffSDXLPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    IFPipeline,
    Kandinsky3Pipeline,
    Kandinsky3UNet,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    MotionAdapter,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    TextToVideoSDPipeline,
    UNet2DConditionModel,
    UNet3DConditionModel,
)

from tests.models.zoo import autoencoders, schedules
from tests.models.zoo.captions import TOKENS, WIDTH, pooled_text, text
from tests.models.zoo.tiny import Tiny, assemble, mask, seeded


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


@seeded
def _stable_diffusion() -> DiffusionPipeline:
    return _stable_diffusion_of(unet(), schedules.pndm())


@seeded
def _stable_diffusion_2() -> DiffusionPipeline:
    return _stable_diffusion_of(unet(use_linear_projection=True), schedules.ddim_velocity())


def _stable_diffusion_of(network: UNet2DConditionModel, scheduler: object) -> DiffusionPipeline:
    return assemble(
        StableDiffusionPipeline,
        vae=autoencoders.kl(4),
        unet=network,
        scheduler=scheduler,
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
    return _three_of(three_transformer())


@seeded
def _three_and_a_half() -> DiffusionPipeline:
    return _three_of(three_transformer(dual_attention_layers=(0,), qk_norm="rms_norm"))


def _three_of(transformer: SD3Transformer2DModel) -> DiffusionPipeline:
    return assemble(
        StableDiffusion3Pipeline,
        transformer=transformer,
        scheduler=schedules.flow(3.0),
        vae=autoencoders.kl_shifted(4),
    )


def three_transformer(**changes: object) -> SD3Transformer2DModel:
    """Of Stable Diffusion 3."""
    arguments: dict[str, object] = {
        "sample_size": 16,
        "patch_size": 2,
        "in_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 4,
        "caption_projection_dim": 32,
        "joint_attention_dim": WIDTH,
        "pooled_projection_dim": WIDTH,
        "out_channels": 4,
        "pos_embed_max_size": 16,
    }
    return SD3Transformer2DModel(**arguments | changes)


@seeded
def _latent_consistency() -> DiffusionPipeline:
    return assemble(
        LatentConsistencyModelPipeline,
        vae=autoencoders.kl(4),
        unet=unet(time_cond_proj_dim=8),
        scheduler=LCMScheduler(**schedules.STABLE, clip_sample=False, set_alpha_to_one=False),
        requires_safety_checker=False,
    )


@seeded
def _animate() -> DiffusionPipeline:
    return assemble(
        AnimateDiffPipeline,
        vae=autoencoders.kl(4),
        unet=unet(),
        motion_adapter=_motion(),
        scheduler=schedules.ddim(),
    )


@seeded
def _animate_xl() -> DiffusionPipeline:
    return assemble(
        AnimateDiffSDXLPipeline,
        vae=autoencoders.kl(4, scaling_factor=0.13025),
        unet=unet(**text_time()),
        motion_adapter=_motion(use_motion_mid_block=False),
        scheduler=schedules.ddim(),
    )


def _motion(**changes: object) -> MotionAdapter:
    return MotionAdapter(
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_norm_num_groups=2,
        motion_num_attention_heads=2,
        **changes,
    )


@seeded
def _text_to_video() -> DiffusionPipeline:
    network = UNet3DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=2,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
    )
    return assemble(TextToVideoSDPipeline, vae=autoencoders.kl(4), unet=network, scheduler=schedules.ddim())


@seeded
def _deepfloyd() -> DiffusionPipeline:
    network = UNet2DConditionModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=(32, 32),
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        in_channels=3,
        out_channels=6,
        cross_attention_dim=32,
        encoder_hid_dim=WIDTH,
        attention_head_dim=4,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
    )
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=1.5,
        variance_type="learned_range",
    )
    return assemble(IFPipeline, unet=network, scheduler=scheduler, requires_safety_checker=False)


@seeded
def _kandinsky3() -> DiffusionPipeline:
    network = Kandinsky3UNet(
        in_channels=4,
        time_embedding_dim=4,
        groups=2,
        attention_head_dim=4,
        layers_per_block=2,
        block_out_channels=(8, 16),
        cross_attention_dim=8,
        encoder_hid_dim=WIDTH,
    )
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    return assemble(Kandinsky3Pipeline, unet=network, movq=autoencoders.movq(4), scheduler=scheduler)


def _kandinsky3_text(number: int) -> dict[str, object]:
    return text(number) | {"attention_mask": mask(number, TOKENS)}


SMALL = ((16, 16), (24, 16))
TWO = {"num_frames": 2}

STABLE = {
    "StableDiffusionPipeline": Tiny(_stable_diffusion, text, SMALL),
    "StableDiffusionPipeline (2.1)": Tiny(_stable_diffusion_2, text, SMALL),
    "StableDiffusionXLPipeline": Tiny(_xl, pooled_text, SMALL),
    "StableDiffusion3Pipeline": Tiny(_three, pooled_text, SMALL),
    "StableDiffusion3Pipeline (3.5)": Tiny(_three_and_a_half, pooled_text, SMALL),
    "LatentConsistencyModelPipeline": Tiny(_latent_consistency, text, SMALL),
    "AnimateDiffPipeline": Tiny(_animate, text, SMALL, TWO),
    "AnimateDiffSDXLPipeline": Tiny(_animate_xl, pooled_text, SMALL, TWO),
    "TextToVideoSDPipeline": Tiny(_text_to_video, text, SMALL, {"num_frames": 1}),
    "IFPipeline": Tiny(_deepfloyd, text, SMALL),
    "Kandinsky3Pipeline": Tiny(_kandinsky3, _kandinsky3_text, ((64, 64), (128, 64))),
}
