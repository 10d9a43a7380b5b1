"""Transformers that take latents as a sequence: Flux and what came after it."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from diffusers import (
    BriaPipeline,
    BriaTransformer2DModel,
    ChromaPipeline,
    ChromaTransformer2DModel,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinKVPipeline,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    NucleusMoEImagePipeline,
    NucleusMoEImageTransformer2DModel,
    OvisImagePipeline,
    OvisImageTransformer2DModel,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)

from tests.models.zoo import autoencoders, schedules
from tests.models.zoo.captions import TOKENS, WIDTH, added_text, pooled_text, qwen_text, text
from tests.models.zoo.tiny import Tiny, assemble, mask, rows, seeded


@seeded
def _flux() -> DiffusionPipeline:
    return _flux_of(flux_transformer(), schedules.flow_by_size())


@seeded
def _flux_schnell() -> DiffusionPipeline:
    return _flux_of(flux_transformer(guidance_embeds=False), schedules.flow())


def _flux_of(transformer: FluxTransformer2DModel, scheduler: FlowMatchEulerDiscreteScheduler) -> DiffusionPipeline:
    return assemble(FluxPipeline, transformer=transformer, vae=autoencoders.kl_shifted(4), scheduler=scheduler)


def flux_transformer(**changes: object) -> FluxTransformer2DModel:
    """Of Flux.1, with its guidance embedded."""
    arguments: dict[str, object] = {
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDTH,
        "pooled_projection_dim": WIDTH,
        "guidance_embeds": True,
        "axes_dims_rope": (4, 4, 8),
    }
    return FluxTransformer2DModel(**arguments | changes)


@seeded
def _flux2() -> DiffusionPipeline:
    return assemble(
        Flux2Pipeline,
        transformer=flux2_transformer(guidance_embeds=True),
        vae=autoencoders.flux2(4),
        scheduler=schedules.flow_by_size(),
    )


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
    return _klein(Flux2KleinPipeline)


@seeded
def _flux2_klein_kv() -> DiffusionPipeline:
    return _klein(Flux2KleinKVPipeline)


def _klein(kind: type[DiffusionPipeline]) -> DiffusionPipeline:
    return assemble(
        kind,
        transformer=flux2_transformer(guidance_embeds=False),
        vae=autoencoders.flux2(4),
        scheduler=schedules.flow_by_size(),
    )


@seeded
def _qwen() -> DiffusionPipeline:
    return assemble(
        QwenImagePipeline,
        transformer=qwen_transformer(),
        vae=autoencoders.qwen(4),
        scheduler=schedules.flow_qwen(),
    )


def qwen_transformer(joint_attention_dim: int = WIDTH) -> QwenImageTransformer2DModel:
    """Of Qwen-Image."""
    return QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=joint_attention_dim,
        axes_dims_rope=(8, 4, 4),
    )


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


@seeded
def _bria() -> DiffusionPipeline:
    transformer = BriaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=[0, 4, 4],
    )
    vae = autoencoders.kl(4, scaling_factor=0.13025, shift_factor=0.1)
    return assemble(BriaPipeline, transformer=transformer, vae=vae, scheduler=schedules.flow_by_size())


@seeded
def _ovis() -> DiffusionPipeline:
    transformer = OvisImageTransformer2DModel(
        in_channels=16,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    )
    return assemble(
        OvisImagePipeline,
        transformer=transformer,
        vae=autoencoders.kl_shifted(4),
        scheduler=schedules.flow_by_size(),
    )


@seeded
def _krea2() -> DiffusionPipeline:
    transformer = Krea2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=32,
        timestep_embed_dim=8,
        text_hidden_dim=WIDTH,
        num_text_layers=3,
        text_num_attention_heads=2,
        text_num_key_value_heads=1,
        text_intermediate_size=16,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 2, 2),
    )
    return assemble(
        Krea2Pipeline,
        transformer=transformer,
        vae=autoencoders.qwen(4),
        scheduler=schedules.flow_by_size(),
        text_encoder_select_layers=(0, 1, 2),
    )


def _krea2_text(number: int) -> dict[str, object]:
    """Embeddings from three layers of the text encoder."""
    return {"prompt_embeds": rows(number, TOKENS, 3, WIDTH), "prompt_embeds_mask": mask(number, TOKENS, torch.bool)}


@seeded
def _nucleus() -> DiffusionPipeline:
    transformer = NucleusMoEImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
        dense_moe_strategy="leave_first_block_dense",
        num_experts=4,
        moe_intermediate_dim=16,
        capacity_factors=[2.0, 2.0],
    )
    return assemble(
        NucleusMoEImagePipeline,
        transformer=transformer,
        vae=autoencoders.qwen(4),
        scheduler=schedules.flow(),
    )


class _Reader:
    """Of a Qwen3-VL processor, what QwenImage21Pipeline asks for when it is made."""

    tokenizer = SimpleNamespace(encode=lambda text: [0])

    def apply_chat_template(self, *_: object, **__: object) -> list[list[int]]:
        return [[0]]


@seeded
def _qwen21() -> DiffusionPipeline:
    transformer = QwenImage21Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
    )
    return assemble(
        QwenImage21Pipeline,
        transformer=transformer,
        vae=autoencoders.qwen21(4),
        scheduler=schedules.flow_by_size(),
        processor=_Reader(),
    )


SMALL = ((16, 16), (24, 16))
EIGHTHS = ((32, 32), (48, 32))

PACKED = {
    "FluxPipeline": Tiny(_flux, pooled_text, SMALL),
    "FluxPipeline (schnell)": Tiny(_flux_schnell, pooled_text, SMALL),
    "Flux2Pipeline": Tiny(_flux2, text, SMALL),
    "Flux2KleinPipeline": Tiny(_flux2_klein, text, SMALL),
    "Flux2KleinKVPipeline": Tiny(_flux2_klein_kv, text, SMALL),
    "ChromaPipeline": Tiny(_chroma, added_text, SMALL),
    "BriaPipeline": Tiny(_bria, text, SMALL),
    "OvisImagePipeline": Tiny(_ovis, text, SMALL),
    "QwenImagePipeline": Tiny(_qwen, qwen_text, EIGHTHS),
    # Its later steps reuse keys and values of the first unless told not to.
    "QwenImage21Pipeline": Tiny(_qwen21, qwen_text, ((32, 32), (64, 32)), {"use_kv_cache": False}),
    # Guidance is off at 0, not at 1.
    "Krea2Pipeline": Tiny(_krea2, _krea2_text, EIGHTHS, {"guidance_scale": 0.0}),
    "NucleusMoEImagePipeline": Tiny(_nucleus, qwen_text, EIGHTHS),
}
