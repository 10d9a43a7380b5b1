"""Transformers that take latents as pictures, and cut them into patches themselves (all of rectified flow)."""

from __future__ import annotations

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    BriaFibo2Pipeline,
    BriaFibo2Transformer2DModel,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    DiffusionPipeline,
    ErnieImagePipeline,
    ErnieImageTransformer2DModel,
    GlmImagePipeline,
    GlmImageTransformer2DModel,
    HiDreamImagePipeline,
    HiDreamImageTransformer2DModel,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
    Kandinsky5T2IPipeline,
    Kandinsky5Transformer3DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    LuminaNextDiT2DModel,
    LuminaPipeline,
    PRXPipeline,
    PRXPixelPipeline,
    PRXTransformer2DModel,
    SanaPipeline,
    SanaSprintPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from tests.models.zoo import autoencoders, schedules
from tests.models.zoo.captions import TOKENS, WIDTH, hunyuan_image_text, kandinsky5_text, listed_text, masked_text, text
from tests.models.zoo.tiny import Tiny, assemble, mask, rows, seeded


@seeded
def _z_image() -> DiffusionPipeline:
    return assemble(
        ZImagePipeline,
        transformer=z_image_transformer(),
        vae=autoencoders.kl(4, scaling_factor=0.3611, shift_factor=0.1159),
        scheduler=schedules.flow(3.0),
    )


def z_image_transformer(cap_feat_dim: int = WIDTH) -> ZImageTransformer2DModel:
    """Of Z-Image."""
    return ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=cap_feat_dim,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )


@seeded
def _sana() -> DiffusionPipeline:
    return assemble(
        SanaPipeline, transformer=sana_transformer(), vae=autoencoders.dc(4), scheduler=schedules.flow_dpm()
    )


def sana_transformer(**changes: object) -> SanaTransformer2DModel:
    """Of Sana and its few-step sister."""
    return SanaTransformer2DModel(
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
        **changes,
    )


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
        num_mmdit_layers=2,
        num_single_dit_layers=2,
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
def _sana_sprint() -> DiffusionPipeline:
    return assemble(
        SanaSprintPipeline,
        transformer=sana_transformer(guidance_embeds=True, qk_norm="rms_norm_across_heads"),
        vae=autoencoders.dc(4),
        scheduler=SCMScheduler(),
    )


@seeded
def _lumina() -> DiffusionPipeline:
    transformer = LuminaNextDiT2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=16,
        num_layers=2,
        num_attention_heads=2,
        num_kv_heads=2,
        multiple_of=16,
        cross_attention_dim=WIDTH,
    )
    return assemble(
        LuminaPipeline, transformer=transformer, vae=autoencoders.kl(4, levels=4), scheduler=schedules.flow()
    )


@seeded
def _hidream() -> DiffusionPipeline:
    transformer = HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_channels=[WIDTH, WIDTH],
        text_emb_dim=WIDTH,
        num_routed_experts=4,
        num_activated_experts=2,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(32, 32),
        llama_layers=(0, 1),
    )
    vae = autoencoders.kl(4, scaling_factor=0.3611, shift_factor=0.1159)
    pipeline = assemble(HiDreamImagePipeline, transformer=transformer, vae=vae, scheduler=schedules.flow(3.0))
    pipeline.default_sample_size = 16  # every picture is drawn at this area
    return pipeline


def _hidream_text(number: int) -> dict[str, object]:
    return {
        "prompt_embeds_t5": rows(number, TOKENS, WIDTH),
        "prompt_embeds_llama3": rows(number, 2, TOKENS, WIDTH, seed=1).transpose(0, 1),
        "pooled_prompt_embeds": rows(number, WIDTH, seed=2),
    }


@seeded
def _kandinsky5() -> DiffusionPipeline:
    pipeline = assemble(
        Kandinsky5T2IPipeline,
        transformer=kandinsky5_transformer(),
        vae=autoencoders.kl(4, levels=4, scaling_factor=0.3611, shift_factor=0.1159),
        scheduler=schedules.flow(3.0),
    )
    pipeline.resolutions = [(32, 32), (48, 32)]  # every picture is drawn at the nearest of these
    return pipeline


def kandinsky5_transformer() -> Kandinsky5Transformer3DModel:
    """For images and videos."""
    return Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        in_text_dim=WIDTH,
        in_text_dim2=WIDTH,
        time_dim=16,
        out_visual_dim=4,
        model_dim=16,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=2,
        axes_dims=(2, 2, 4),
    )


@seeded
def _prx() -> DiffusionPipeline:
    return assemble(
        PRXPipeline,
        transformer=_prx_transformer(in_channels=4, patch_size=2),
        vae=autoencoders.kl_shifted(4),
        scheduler=schedules.flow(3.0),
    )


@seeded
def _prx_pixel() -> DiffusionPipeline:
    return assemble(
        PRXPixelPipeline,
        transformer=_prx_transformer(in_channels=3, patch_size=4, bottleneck_size=8, resolution_embeds=True),
        scheduler=schedules.flow(3.0),
    )


def _prx_transformer(**changes: object) -> PRXTransformer2DModel:
    return PRXTransformer2DModel(
        context_in_dim=WIDTH, hidden_size=16, mlp_ratio=2.0, num_heads=2, depth=2, axes_dim=[4, 4], **changes
    )


@seeded
def _ernie() -> DiffusionPipeline:
    transformer = ErnieImageTransformer2DModel(
        hidden_size=32,
        num_attention_heads=2,
        num_layers=2,
        ffn_hidden_size=32,
        in_channels=16,
        out_channels=16,
        text_in_dim=WIDTH,
        rope_axes_dim=(8, 4, 4),
    )
    return assemble(
        ErnieImagePipeline, transformer=transformer, vae=autoencoders.flux2(4), scheduler=schedules.flow(3.0)
    )


@seeded
def _glm() -> DiffusionPipeline:
    transformer = GlmImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=WIDTH,
        time_embed_dim=16,
        condition_dim=8,
        prior_vq_quantizer_codebook_size=128,
    )
    vae = autoencoders.kl(4, levels=4, **autoencoders.spread(4))
    return assemble(GlmImagePipeline, transformer=transformer, vae=vae, scheduler=schedules.flow_by_size())


def _glm_text(number: int) -> dict[str, object]:
    """Beside the embeddings, one discrete token for each 16x16 pixels: both sizes have as many."""
    return text(number) | {"prior_token_ids": rows(number, 8, seed=1).abs().mul(10).long()}


@seeded
def _hunyuan_image() -> DiffusionPipeline:
    transformer = HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=4,
        attention_head_dim=8,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=(1, 1),
        guidance_embeds=True,
        text_embed_dim=WIDTH,
        text_embed_2_dim=WIDTH,
        rope_axes_dim=(4, 4),
    )
    return assemble(
        HunyuanImagePipeline,
        transformer=transformer,
        vae=autoencoders.hunyuan_image(4),
        scheduler=schedules.flow(5.0),
    )


@seeded
def _bria_fibo2() -> DiffusionPipeline:
    transformer = BriaFibo2Transformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        cap_feat_dim=WIDTH,
        injection_layer_ids=(1,),
        perceiver_num_layers=1,
        min_num_gist_tokens=4,
        max_num_gist_tokens=8,
        gist_step=4,
        gist_min_text_len=4,
        gist_max_text_len=32,
        axes_dims=(8, 4, 4),
        axes_lens=(256, 32, 32),
    )
    return assemble(
        BriaFibo2Pipeline, transformer=transformer, vae=autoencoders.flux2(4), scheduler=schedules.flow_by_size()
    )


def _bria_fibo2_text(number: int) -> dict[str, object]:
    """Embeddings for the first block, and for each layer that takes them anew."""
    return {"prompt_embeds": rows(number, 2, TOKENS, WIDTH), "prompt_embeds_mask": mask(number, TOKENS, torch.bool)}


SMALL = ((16, 16), (24, 16))
MIDDLE = ((16, 16), (32, 16))
EIGHTHS = ((32, 32), (48, 32))
NO_BINS = {"use_resolution_binning": False}
WITHOUT_NEGATIVE = {"negative_prompt": None}

UNPACKED = {
    # Guidance is off at 0, not at 1.
    "ZImagePipeline": Tiny(_z_image, listed_text, SMALL, {"guidance_scale": 0.0}),
    "SanaPipeline": Tiny(_sana, masked_text, ((32, 32), (64, 32)), NO_BINS | WITHOUT_NEGATIVE),
    "SanaSprintPipeline": Tiny(
        _sana_sprint, masked_text, ((32, 32), (64, 32)), NO_BINS | {"intermediate_timesteps": None}
    ),
    "LuminaPipeline": Tiny(_lumina, masked_text, EIGHTHS),
    "Lumina2Pipeline": Tiny(_lumina2, masked_text, EIGHTHS),
    "AuraFlowPipeline": Tiny(_aura_flow, masked_text, SMALL),
    "CogView4Pipeline": Tiny(_cogview4, text, MIDDLE),
    "HiDreamImagePipeline": Tiny(_hidream, _hidream_text, ((32, 32), (64, 16))),
    "Kandinsky5T2IPipeline": Tiny(_kandinsky5, kandinsky5_text, EIGHTHS),
    "PRXPipeline": Tiny(_prx, masked_text, MIDDLE, NO_BINS),
    "PRXPixelPipeline": Tiny(_prx_pixel, masked_text, MIDDLE, NO_BINS),
    "ErnieImagePipeline": Tiny(_ernie, listed_text, SMALL),
    "GlmImagePipeline": Tiny(_glm, _glm_text, ((64, 32), (32, 64))),
    "HunyuanImagePipeline": Tiny(_hunyuan_image, hunyuan_image_text, MIDDLE),
    "BriaFibo2Pipeline": Tiny(_bria_fibo2, _bria_fibo2_text, MIDDLE),
}
