"""What the training loop and the evaluation need of a model family: encode, noise, predict, sample.

Shapes: N items, C latent channels, h x w latent pixels, L tokens of text, D its width.
Latents and noise are float32 (N, C, h, w); timesteps are int64 (N,) in 0..T-1; embeddings are (N, L, D).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from PIL.Image import Image
from torch import Tensor

from cl_steps.config import Compute, Serving
from cl_steps.errors import UsageError
from cl_steps.models.adapters import Adapters
from cl_steps.models.loading import choose_device, load_pipeline

PREDICTIONS = ("epsilon", "v_prediction", "sample")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LossSpace:
    """What a denoising loss is measured in: two models' losses compare only where all of it is the same.

    Attributes:
        size: (width, height) in pixels.
        encoder: digest of what makes latents of images, and how these are scaled.
        prediction: what the model predicts.
        schedule: digest of the noise schedule.
    """

    size: tuple[int, int]
    encoder: str
    prediction: str
    schedule: str

    def differs(self, other: LossSpace) -> str:
        """In what the two differ, in words; empty where losses compare."""
        words = {
            "size": "image size",
            "encoder": "autoencoder",
            "prediction": "prediction",
            "schedule": "noise schedule",
        }
        return " and ".join(word for name, word in words.items() if getattr(self, name) != getattr(other, name))


def open_denoiser(path_or_id: str | Path, compute: Compute) -> Denoiser:
    """The pipeline in a folder (or of a hub id) on the device and in the precision of `compute`.

    Raises:
        UsageError, Unavailable: as `load_pipeline` and `choose_device` do.
    """
    device, dtype = choose_device(compute), DTYPES[compute.precision]
    return Denoiser(load_pipeline(path_or_id, device, dtype), device, dtype)


class Denoiser:
    """A latent diffusion model with named adapters on one frozen base.

    Nothing depends on the global random state. Latents and embeddings of an item do not depend on which other items
    are encoded with it: each is encoded alone.
    """

    def __init__(
        self, pipeline: StableDiffusionPipeline, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
        self.prediction_type = str(schedule.config.prediction_type)
        if self.prediction_type not in PREDICTIONS:
            raise UsageError(
                f"the base predicts {self.prediction_type!r:.40}: only {', '.join(PREDICTIONS)} can be trained"
            )
        self.pipeline, self.device, self.dtype = pipeline, device, dtype
        self.adapters = Adapters({"unet": pipeline.unet}, device)
        self.num_timesteps = len(schedule.alphas_cumprod)
        alphas = schedule.alphas_cumprod.to(device, torch.float64)
        self._signal = alphas.sqrt().float()
        self._noise = (1 - alphas).sqrt().float()
        self._scaling = float(pipeline.vae.config.scaling_factor)
        self._shift = float(getattr(pipeline.vae.config, "shift_factor", None) or 0)
        self._texts: dict[str, Tensor] = {}

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels of the images that the UNet was made for."""
        side = self.pipeline.unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return width * self.pipeline.vae_scale_factor, height * self.pipeline.vae_scale_factor

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the latents of an image of `size`."""
        width, height = (side // self.pipeline.vae_scale_factor for side in self.size)
        return int(self.pipeline.vae.config.latent_channels), height, width

    @property
    def loss_space(self) -> LossSpace:
        """What the losses of `errors` are measured in."""
        vae = self.pipeline.vae
        names = [name for name in sorted(vae.state_dict()) if name.startswith(("encoder.", "quant_conv."))]
        weights = [vae.state_dict()[name] for name in names]
        scale = torch.tensor([self._scaling, self._shift])
        schedule = (self._signal, self._noise)
        return LossSpace(self.size, _digest(*weights, scale), self.prediction_type, _digest(*schedule))

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image]) -> Tensor:
        """Scaled posterior means (N, C, h, w), on the CPU; images are RGB, all of one size (see `data.decode`)."""
        latents = []
        for image in images:
            pixels = torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
            posterior = self.pipeline.vae.encode(pixels.to(self.device)).latent_dist
            latents.append(((posterior.mean - self._shift) * self._scaling).cpu())
        return torch.cat(latents) if latents else torch.empty((0, *self.latent_shape))

    @torch.no_grad()
    def encode_prompts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (N, L, D) on the device; each distinct text is encoded once and kept."""
        for text in dict.fromkeys(texts):
            if text not in self._texts:
                self._texts[text] = self._encode_prompt(text)
        return torch.stack([self._texts[text] for text in texts])

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) noise (DDPM, arXiv 2006.11239, eq. 4)."""
        return _at(self._signal, t) * x0 + _at(self._noise, t) * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the model should predict: noise, x0, or v = sqrt(abar_t) noise - sqrt(1 - abar_t) x0 (2202.00512)."""
        if self.prediction_type == "v_prediction":
            return _at(self._signal, t) * noise - _at(self._noise, t) * x0
        return noise if self.prediction_type == "epsilon" else x0

    def predict(self, x_t: Tensor, t: Tensor, embeddings: Tensor, adapter: str | None = "default") -> Tensor:
        """The raw, unguided output (N, C, h, w) in float32 with one adapter, or with None of the base alone."""
        with self._autocast(), self.adapters.active(adapter):
            output: Tensor = self.pipeline.unet(x_t, t, embeddings, return_dict=False)[0]
        return output.float()

    @torch.no_grad()
    def errors(
        self, x0: Tensor, noise: Tensor, t: Tensor, texts: Sequence[str], adapter: str | None, batch_size: int = 32
    ) -> Tensor:
        """Denoising losses (N,), on the CPU: each item's mean squared error at its own (noise, t)."""
        parts = []
        for begin in range(0, len(x0), batch_size):
            rows = slice(begin, begin + batch_size)
            x, e, at = (tensor[rows].to(self.device) for tensor in (x0, noise, t))
            output = self.predict(self.add_noise(x, e, at), at, self.encode_prompts(texts[rows]), adapter)
            parts.append((output - self.target(x, e, at)).square().mean(dim=(1, 2, 3)).cpu())
        return torch.cat(parts) if parts else torch.empty(0)

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        serving: Serving,
        adapter: str | None = "default",
        batch_size: int = 16,
    ) -> list[Image]:
        """One image a prompt, drawn from its own seed by the pipeline's own scheduler and serving code.

        All noise of an image comes from a CPU generator seeded by its seed, so (prompt, seed) fixes the image whatever
        else is in the batch, up to rounding in the last bits of float32.
        """
        width, height = self.size
        images: list[Image] = []
        for begin in range(0, len(prompts), batch_size):
            rows = slice(begin, begin + batch_size)
            with self._autocast(), self.adapters.active(adapter):
                drawn = self.pipeline(
                    prompt_embeds=self.encode_prompts(prompts[rows]),
                    negative_prompt_embeds=self.encode_prompts([serving.negative_prompt] * len(prompts[rows])),
                    generator=[torch.Generator().manual_seed(seed) for seed in seeds[rows]],
                    num_inference_steps=serving.num_inference_steps,
                    guidance_scale=serving.guidance_scale,
                    width=serving.width or width,
                    height=serving.height or height,
                )
            images.extend(drawn.images)
        return images

    def _encode_prompt(self, text: str) -> Tensor:
        encoder, tokenizer = self.pipeline.text_encoder, self.pipeline.tokenizer
        length = min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings))
        tokens = tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        mask = tokens.attention_mask.to(self.device) if getattr(encoder.config, "use_attention_mask", False) else None
        embedding: Tensor = encoder(tokens.input_ids.to(self.device), attention_mask=mask)[0][0]
        return embedding

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


def _digest(*tensors: Tensor) -> str:
    """SHA-256 over shapes and values."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(str(tuple(tensor.shape)).encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _at(values: Tensor, t: Tensor) -> Tensor:
    """values[t] as (N, 1, 1, 1)."""
    return values[t].view(-1, 1, 1, 1)
