"""Tiny autoencoders; none scales its latents by one or centres them at nought, so that undoing it is tested."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLAllegro,
    AutoencoderKLCogVideoX,
    AutoencoderKLCosmos,
    AutoencoderKLFlux2,
    AutoencoderKLHunyuanImage,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    AutoencoderKLLTXVideo,
    AutoencoderKLMagvit,
    AutoencoderKLMochi,
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    AutoencoderKLWan,
    VQModel,
)
from diffusers.pipelines.ltx2 import LTX2Vocoder


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


def wan_16(channels: int) -> AutoencoderKLWan:
    """Wan 2.2's second one: divides the sides by 16, of which a half before all else."""
    return wan(channels, patch_size=2, in_channels=12, out_channels=12, scale_factor_spatial=16)


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
    """Divides the sides by 8; its decoder looks at its codes again in every norm."""
    return VQModel(
        block_out_channels=[32] * 4,
        down_block_types=[*["DownEncoderBlock2D"] * 3, "AttnDownEncoderBlock2D"],
        up_block_types=["AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * 3],
        latent_channels=channels,
        layers_per_block=1,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=channels,
    )


def hunyuan_video15(channels: int) -> AutoencoderKLHunyuanVideo15:
    """Divides the sides by 4 and the frames after the first by 2."""
    return AutoencoderKLHunyuanVideo15(
        latent_channels=channels,
        block_out_channels=(16, 16),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=2,
        downsample_match_channel=False,
        upsample_match_channel=False,
    )


def cogvideo(channels: int) -> AutoencoderKLCogVideoX:
    """Divides the sides by 8 and the frames after the first by 4."""
    return AutoencoderKLCogVideoX(
        block_out_channels=(8,) * 4, latent_channels=channels, layers_per_block=1, norm_num_groups=2
    )


def allegro(channels: int) -> AutoencoderKLAllegro:
    """Divides the sides by 8 and the frames by 4; decodes in tiles only."""
    vae = AutoencoderKLAllegro(
        block_out_channels=(8,) * 4, latent_channels=channels, layers_per_block=1, norm_num_groups=2
    )
    vae.enable_tiling()
    vae.kernel, vae.stride = (8, 16, 16), (4, 8, 8)
    return vae


def mochi() -> AutoencoderKLMochi:
    """Divides the sides by 8 and the frames after the first by 6; twelve channels."""
    return AutoencoderKLMochi(
        encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4, layers_per_block=(1,) * 5
    )


def magvit(channels: int) -> AutoencoderKLMagvit:
    """Divides the sides by 8 and the frames after the first by 4."""
    return AutoencoderKLMagvit(
        block_out_channels=(8,) * 4,
        latent_channels=channels,
        layers_per_block=1,
        norm_num_groups=2,
        spatial_group_norm=False,
    )


def cosmos(channels: int) -> AutoencoderKLCosmos:
    """Divides the sides by 4 and the frames after the first by 4."""
    return AutoencoderKLCosmos(
        latent_channels=channels,
        encoder_block_out_channels=(8,) * 4,
        decode_block_out_channels=(8,) * 4,
        attention_resolutions=(8,),
        resolution=64,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
    )


def ltx2(channels: int) -> AutoencoderKLLTX2Video:
    """Halves the sides and the frames after the first."""
    vae = AutoencoderKLLTX2Video(
        latent_channels=channels,
        block_out_channels=(8,),
        decoder_block_out_channels=(8,),
        layers_per_block=(1,),
        decoder_layers_per_block=(1, 1),
        spatio_temporal_scaling=(True,),
        decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(False, False),
        downsample_type=("spatiotemporal",),
        upsample_residual=(False,),
        upsample_factor=(1,),
        patch_size=1,
        decoder_causal=False,
    )
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    torch.nn.init.normal_(vae.latents_mean)
    torch.nn.init.uniform_(vae.latents_std, 0.5, 2)
    return vae


def ltx2_audio() -> AutoencoderKLLTX2Audio:
    """Of the sound beside an LTX 2 video."""
    return AutoencoderKLLTX2Audio(
        base_channels=4,
        ch_mult=(1,),
        num_res_blocks=1,
        resolution=32,
        latent_channels=2,
        mel_bins=8,
    )


def ltx2_vocoder() -> LTX2Vocoder:
    """From its spectrum to the sound."""
    return LTX2Vocoder(
        in_channels=16,
        hidden_channels=32,
        upsample_kernel_sizes=[4, 4],
        upsample_factors=[2, 2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3, 5]],
        output_sampling_rate=16000,
    )
