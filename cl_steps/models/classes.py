"""A class-conditional network without text and autoencoder, as a pipeline that is watched like any other.

diffusers has no pipeline that calls a `UNet2DModel` with classes; its folders name one that draws without any. A
caption stands for the class whose number it holds, and an empty one for the last: networks that draw without a class
too have one for that; without one `update.caption_dropout` must be 0.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DDIMPipeline, DDPMPipeline, DiffusionPipeline, ImagePipelineOutput, UNet2DModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from cl_steps.errors import UsageError

NUMBER = re.compile(r"\d{1,9}")


class Pixels(nn.Module):
    """An autoencoder whose codes are the pixels, of `channels`: 3, or 1 for grey."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def encode(self, pixels: Tensor) -> SimpleNamespace:
        """Pixels (N, 3, h, w) in [-1, 1] as (N, channels, h, w)."""
        return SimpleNamespace(latents=pixels if self.channels == 3 else pixels.mean(dim=1, keepdim=True))

    def decode(self, latents: Tensor) -> SimpleNamespace:
        """The same."""
        return SimpleNamespace(sample=latents)


class ClassPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Draws pictures of classes, with any of diffusers' schedulers."""

    def __init__(self, unet: UNet2DModel, scheduler: Any, vae: Pixels) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, vae=vae)
        self.image_processor = VaeImageProcessor(vae_scale_factor=1)

    @torch.no_grad()
    def __call__(
        self,
        prompt: Sequence[str] = (),
        class_labels: Tensor | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        generator: Any = None,
        output_type: str = "pil",
    ) -> ImagePipelineOutput:
        """A picture of the class of each prompt, or of each of `class_labels` (N,)."""
        device, config = self._execution_device, self.unet.config
        height, width = height or config.sample_size, width or config.sample_size
        if class_labels is None:
            class_labels = torch.tensor([self._class_of(text) for text in prompt], device=device)
        shape = (len(class_labels), config.in_channels, height, width)
        latents = randn_tensor(shape, generator, device, self.unet.dtype)
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        known = inspect.signature(self.scheduler.step).parameters
        drawn = {"generator": generator} if "generator" in known else {}
        for t in self.scheduler.timesteps:
            noise = self.unet(self.scheduler.scale_model_input(latents, t), t, class_labels).sample
            latents = self.scheduler.step(noise, t, latents, **drawn).prev_sample
        pictures = self.vae.decode(latents.float()).sample
        return ImagePipelineOutput(self.image_processor.postprocess(pictures, output_type))

    def _class_of(self, text: str) -> int:
        count, found = int(self.unet.config.num_class_embeds), NUMBER.search(text)
        number = int(found[0]) if found else -1 if text.strip() else count - 1
        if not 0 <= number < count:
            raise UsageError(
                f"{text!r:.80} names no class of this base: a caption holds a number from 0 to {count - 1}"
            )
        return number


def with_classes(pipeline: DiffusionPipeline) -> DiffusionPipeline:
    """A pipeline that draws without classes as one that draws them, where its network knows any."""
    if isinstance(pipeline, (DDPMPipeline, DDIMPipeline)) and pipeline.unet.config.num_class_embeds:
        return ClassPipeline(pipeline.unet, pipeline.scheduler, Pixels(int(pipeline.unet.config.in_channels)))
    return pipeline
