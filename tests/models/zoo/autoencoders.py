"""Tiny autoencoders; none scales its latents by one or centres them at nought, so that undoing it is tested."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLHunyuanImage,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    AutoencoderKLWan,
    VQModel,
)


def spread(channels: int) -> dict[str, list[float]]:
    """Means and standard deviations of latents, of which no two are alike."""
    return {
        "latents_mean": [0.1 * channel - 0.2 for channel in range(channels)],
        "latents_std": [1.5 + 0.1 * channel for channel in range(channels)],
    }


def kl(channels: int, levels: int = 2, **changes: object) -> AutoencoderKL:
    """Halves the sides `levels - 1` times."""
    arguments: dict[str, object] = {
        "latent_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": (4, *(8,) * (levels - 1)),
        "layers_per_block": 1,
        "norm_num_groups": 2,
    }
    return AutoencoderKL(**arguments | changes)


def kl_shifted(channels: int, levels: int = 2) -> AutoencoderKL:
    """As the flow models have it: with a shift, without the two convolutions at the latents."""
    return kl(
        channels, levels, shift_factor=0.0609, scaling_factor=1.5035, use_quant_conv=False, use_post_quant_conv=False
    )


def flux2(channels: int) -> AutoencoderKLFlux2:
    """Scales latents by the statistics of a batch norm over 2x2 patches."""
    vae = AutoencoderKLFlux2(
        latent_channels=channels,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=(4, 8),
        layers_per_block=1,
        norm_num_groups=2,
    )
    torch.nn.init.normal_(vae.bn.running_mean)
    torch.nn.init.uniform_(vae.bn.running_var, 0.5, 2)
    return vae


def dc(channels: int) -> AutoencoderDC:
    """Halves the sides once."""
    return AutoencoderDC(
        in_channels=3,
        latent_channels=channels,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    )


def qwen(channels: int) -> AutoencoderKLQwenImage:
    """Divides the sides by 8."""
    return AutoencoderKLQwenImage(
        base_dim=3,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        **spread(channels),
    )


def wan(channels: int, **changes: object) -> AutoencoderKLWan:
    """Divides the sides by 8 and the frames after the first by 4."""
    arguments: dict[str, object] = {
        "base_dim": 3,
        "z_dim": channels,
        "dim_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "temperal_downsample": [False, True, True],
    }
    return AutoencoderKLWan(**arguments | spread(channels) | changes)


def ltx(channels: int) -> AutoencoderKLLTXVideo:
    """Divides the sides by 4 and the frames after the first by 4."""
    vae = AutoencoderKLLTXVideo(
        latent_channels=channels,
        block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        patch_size=1,
        patch_size_t=1,
        scaling_factor=0.8,
    )
    torch.nn.init.normal_(vae.latents_mean)
    torch.nn.init.uniform_(vae.latents_std, 0.5, 2)
    return vae


def hunyuan_video(channels: int) -> AutoencoderKLHunyuanVideo:
    """Divides the sides by 8 and the frames after the first by 4."""
    return AutoencoderKLHunyuanVideo(
        latent_channels=channels,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        scaling_factor=0.476986,
    )


def qwen21(channels: int) -> AutoencoderKLQwenImage21:
    """Divides the sides by 16."""
    return AutoencoderKLQwenImage21(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1, 1],
        num_res_blocks=1,
        **spread(channels),
    )


def hunyuan_image(channels: int) -> AutoencoderKLHunyuanImage:
    """Divides the sides by 8."""
    return AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=channels,
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=1,
        scaling_factor=0.476986,
        spatial_compression_ratio=8,
        sample_size=128,
    )


def movq(channels: int) -> VQModel:
    """Halves the sides once; its decoder looks at its codes again in every norm."""
    return VQModel(
        block_out_channels=[8, 8],
        down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        up_block_types=["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
        latent_channels=channels,
        layers_per_block=1,
        norm_num_groups=2,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=channels,
    )
