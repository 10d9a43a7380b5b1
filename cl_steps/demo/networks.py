"""The networks of the demonstration, before any training: the parts of a `StableDiffusionPipeline` and a `CLIPModel`.

All are the ordinary classes of diffusers and transformers, only small: 1.6 and 0.5 million parameters.
"""

import math
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from cl_steps.demo.drawing import SIDE
from cl_steps.demo.vocabulary import MAX_TOKENS

WORD_SPREAD = 0.25  # with transformers' 0.02 the words of unseen styles are all but invisible to the layers above
NUM_CARRIED = 6


def build_vae() -> AutoencoderKL:
    """(N, 3, 32, 32) to latents (N, 4, 8, 8) and back; starts near the identity, without which it stays grey."""
    widths = (16, 32, 48)
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        block_out_channels=widths,
        norm_num_groups=2,
        sample_size=SIDE,
        mid_block_add_attention=False,
    )
    start_near_identity(vae)
    return vae


def build_unet() -> UNet2DConditionModel:
    """The denoiser of latents (N, 4, 8, 8), which attends to (N, 16, 64) text at both levels and in the middle."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=["CrossAttnDownBlock2D"] * 2,
        up_block_types=["CrossAttnUpBlock2D"] * 2,
        mid_block_type="UNetMidBlock2DCrossAttn",
        cross_attention_dim=64,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Text of 16 tokens to (N, 16, 64)."""
    model = CLIPTextModel(text_config(tokenizer))
    nn.init.normal_(model.get_input_embeddings().weight, 0, WORD_SPREAD)
    return model


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """A vision transformer over 8x8 patches of 4x4 pixels, and a text encoder, into one space of 64 dimensions."""
    vision = {
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": 4,
    }
    config = CLIPConfig(text_config=text_config(tokenizer).to_dict(), vision_config=vision, projection_dim=64)
    model = CLIPModel(config)
    nn.init.normal_(model.text_model.get_input_embeddings().weight, 0, WORD_SPREAD)
    start_seeing_places(model)
    return model


@torch.no_grad()
def start_seeing_places(model: CLIPModel) -> None:
    """Starts the vision transformer with patches at full strength and places as waves in two dimensions.

    With the usual 0.02 it begins as a bag of patches, and stays one (colours, no shapes) for hundreds of steps.
    """
    embeddings = model.vision_model.embeddings
    nn.init.normal_(embeddings.patch_embedding.weight, 0, embeddings.patch_embedding.weight[0].numel() ** -0.5)
    across = int(embeddings.num_patches**0.5)
    waves = _waves(across, embeddings.embed_dim // 2)
    rows, columns = waves.repeat_interleave(across, dim=0), waves.repeat(across, 1)
    embeddings.position_embedding.weight[1:] = torch.cat([rows, columns], dim=1)


def _waves(places: int, width: int) -> torch.Tensor:
    """Sines and cosines (places, width) of falling frequency."""
    frequencies = math.pi / 2 * (1 / places) ** torch.linspace(0, 1, width // 2)
    angles = torch.arange(places)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def text_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    """Two layers of width 64; the special tokens are the tokenizer's own."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        projection_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build_scheduler() -> DDIMScheduler:
    """Velocity prediction with zero signal at the last timestep (arXiv 2305.08891), 1,000 timesteps."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        steps_offset=1,
    )


@torch.no_grad()
def start_near_identity(vae: AutoencoderKL) -> None:
    """Lets the first six channels carry the colours, and their negatives, through both halves of an autoencoder."""
    for half in (vae.encoder, vae.decoder):
        for module in half.modules():
            _carry(module)
        _open_ends(half.conv_in, half.conv_out)


def _carry(module: Any) -> None:
    """Makes one block pass its first channels on: residuals weak, changes of size plain averages or copies."""
    kind = type(module).__name__
    if kind == "ResnetBlock2D":
        module.conv2.weight.mul_(0.2)
        module.conv2.bias.zero_()
        if module.conv_shortcut is not None:
            _pass_through(module.conv_shortcut)
    elif kind == "Downsample2D":
        _pass_through(module.conv)
        for channel in range(NUM_CARRIED):
            module.conv.weight[channel, channel, :2, :2] = 0.25
    elif kind == "Upsample2D":
        _pass_through(module.conv)


def _pass_through(conv: nn.Conv2d) -> None:
    """Output channels 0 to 5 become copies of the same input channels."""
    middle = conv.kernel_size[0] // 2
    conv.weight[:NUM_CARRIED] = 0
    _no_bias(conv)
    for channel in range(NUM_CARRIED):
        conv.weight[channel, channel, middle, middle] = 1


def _no_bias(conv: nn.Conv2d) -> None:
    """Channels 0 to 5 are carried as they are."""
    assert conv.bias is not None
    conv.bias[:NUM_CARRIED] = 0


def _open_ends(first: nn.Conv2d, last: nn.Conv2d) -> None:
    """Splits three channels into themselves and their negatives on the way in, and joins them on the way out."""
    first.weight[:NUM_CARRIED] = 0
    _no_bias(first)
    last.weight.mul_(0.1)
    for channel in range(3):
        first.weight[channel, channel, 1, 1] = 1
        first.weight[channel + 3, channel, 1, 1] = -1
        last.weight[channel, channel, 1, 1] += 1
        last.weight[channel, channel + 3, 1, 1] -= 1
