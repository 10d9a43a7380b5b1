"""What the pipelines of Cosmos have in common."""

from __future__ import annotations

from diffusers import CosmosTransformer3DModel

from tests.models.zoo.captions import WIDTH


class Trusting:
    """In place of Cosmos's guardrail, a large model of its own: lets everything pass."""

    def to(self, device: object) -> Trusting:
        return self

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, video: object) -> object:
        return video


def cosmos_transformer(in_channels: int = 4) -> CosmosTransformer3DModel:
    """Of Cosmos 1, 2 and 2.5."""
    return CosmosTransformer3DModel(
        in_channels=in_channels,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        mlp_ratio=2,
        text_embed_dim=WIDTH,
        adaln_lora_dim=4,
        max_size=(4, 32, 32),
        rope_scale=(2.0, 1.0, 1.0),
        concat_padding_mask=False,  # else it needs torchvision
        extra_pos_embed_type="learnable",
    )
