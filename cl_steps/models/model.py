"""What the training loop and the evaluation need of a pipeline: encode, noise, predict, sample.

Any diffusers pipeline whose call has a loop of a network and a scheduler's steps serves: what is needed is seen by
watching that call (`family`), and no family has code of its own.

Shapes: N items; latents and noise are float32 (N, ...) in the form in which the pipeline's loop has them; timesteps
(N,) are whole where the schedule preserves variance and real where it is a flow.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import DiffusionPipeline
from PIL.Image import Image
from torch import Tensor, nn

from cl_steps.config import Compute, Serving
from cl_steps.errors import UsageError
from cl_steps.models.adapters import Adapters
from cl_steps.models.buckets import buckets, by_nearness
from cl_steps.models.captions import NEGATIVE, Captions, Conditions, alike, joined, shapes
from cl_steps.models.family import Family, derive, resized
from cl_steps.models.loading import choose_device, choose_dtype, load_pipeline
from cl_steps.models.prediction import Predictor
from cl_steps.models.schedule import digest
from cl_steps.models.watching import FIXED, Size, Values, autoencoder, placed

CANNOT = "this base cannot be kept up to date: "
ENCODED_AT_ONCE = 8
"""Images that a GPU encodes at a time; a CPU is no faster with several."""
DECODING = ("decoder.", "post_quant_conv.")
"""What of an autoencoder has no say in what an image is encoded to."""


@dataclass(frozen=True)
class LossSpace:
    """What a denoising loss is measured in: two models' losses compare only where all of it is the same.

    Attributes:
        size: (width, height) in pixels.
        encoder: digest of what makes latents of images, and how these are scaled.
        prediction: what the model predicts.
        schedule: digest of the noise schedule.
    """

    size: Size
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


def open_denoiser(path_or_id: str | Path, compute: Compute, serving: Serving | None = None) -> Denoiser:
    """The pipeline in a folder (or of a hub id) on the device and in the precision of `compute`.

    It works at the size at which a line is served, where `serving` says one, and otherwise at the pipeline's own and at
    those of other shapes and as many pixels.

    Raises:
        UsageError, Unavailable: as `load_pipeline`, `choose_device` and `derive` do.
    """
    device = choose_device(compute)
    dtype = choose_dtype(compute, device)
    pipeline = load_pipeline(path_or_id, device, dtype, compute)
    size = (serving.width, serving.height) if serving and serving.width and serving.height else None
    try:
        family = derive(pipeline, device, size)
        # Processes with a share of the weights each call the networks together, which pictures of one size allow.
        is_one_size = size is not None or compute.shard
        return Denoiser(pipeline, device, dtype, family, (family.size,) if is_one_size else None)
    except UsageError as error:
        raise UsageError(f"{CANNOT}{error}") from error


class Denoiser:
    """A latent diffusion model with named adapters on one frozen base.

    Nothing depends on the global random state. Latents and conditions of an item do not depend on which other items
    are encoded with it: captions are encoded alone, images in batches of one size.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        family: Family | None = None,
        sizes: tuple[Size, ...] | None = None,
    ) -> None:
        self.pipeline, self.device, self.dtype = pipeline, device, dtype
        self.family = family or derive(pipeline, device)
        self.schedule = self.family.schedule
        self.autoencoder = autoencoder(pipeline)
        self.adapters = Adapters(self.family.watcher.networks, device)
        self.captions = Captions(self.family.watcher, self.family.size)
        self._predictor = Predictor(self.family)
        self.encoded_at_once = ENCODED_AT_ONCE if device.type == "cuda" else 1
        self._against: dict[tuple[str, str], Conditions] = {}
        self._sizes = sizes or buckets(self.family.size)
        self._resized: dict[Size, Denoiser | None] = {self.family.size: self}

    def size_for(self, picture: Size) -> Size:
        """At which of its sizes it works with a picture of this (width, height)."""
        return next(size for size in by_nearness(self._sizes, picture) if self._at(size))

    def at(self, size: Size) -> Denoiser:
        """The same model, with the same adapters and captions, at one of the sizes of `size_for`."""
        found = self._at(size)
        if found is None:
            raise UsageError(f"{CANNOT}it takes no pictures of {size[0]} x {size[1]}")
        return found

    def _at(self, size: Size) -> Denoiser | None:
        if size not in self._resized:
            self._resized[size] = self._tried(size)
        return self._resized[size]

    def _tried(self, size: Size) -> Denoiser | None:
        try:
            other = copy.copy(self)
            other.family = resized(self.family, size)
            other._predictor = Predictor(other.family)
            # A pipeline that rounds a size has latents of another than the picture's.
            other.encode_images([PIL.Image.new("RGB", size)])
        except torch.OutOfMemoryError:
            raise
        except Exception:  # a pipeline may refuse a size in any way
            return None
        return other

    @property
    def size(self) -> Size:
        """(width, height) in pixels of the images that it works with here; see `at`."""
        return self.family.size

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of the latents of one image of `size`."""
        return tuple(self.family.codes.latents)

    @property
    def loss_space(self) -> LossSpace:
        """What the losses of `errors` are measured in."""
        weights = [value for name, value in sorted(self.autoencoder.state_dict().items()) if not _decodes(name)]
        encoder = digest(*weights, self.family.codes.scale, self.family.codes.shift)
        return LossSpace(self.size, encoder, self.schedule.prediction, self.schedule.digest())

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image]) -> Tensor:
        """Posterior means as latents (N, ...), on the CPU; images are RGB, all of `size` (see `data.shards.decode`)."""
        codes, vae, rows = self.family.codes, self.autoencoder, self.encoded_at_once
        latents = [torch.empty((0, *self.latent_shape))]
        for begin in range(0, len(images), rows):
            some = images[begin : begin + rows]
            # Always as many rows, so that what an image becomes does not depend on how many there are beside it.
            full = [*some, *[some[-1]] * (rows - len(some))]
            pixels = torch.from_numpy(np.stack([np.asarray(image, dtype=np.float32) for image in full]))
            pixels = pixels.permute(0, 3, 1, 2) / 127.5 - 1
            # An autoencoder of videos takes frames behind the channels.
            pixels = pixels[:, :, None] if len(codes.code) == len(pixels.shape) else pixels
            code = _code(vae.encode(pixels.to(vae.device, vae.dtype))).float().cpu()
            latents.append(codes.latents_of(code)[: len(some)])
        return torch.cat(latents)

    def cut(self, texts: Collection[str]) -> int:
        """How many of the captions are longer than any text encoder reads."""
        return self.captions.cut(texts)

    def encode_prompts(self, texts: Sequence[str]) -> list[Conditions]:
        """Each caption's conditions, on the CPU; each distinct text is encoded once and kept (`captions.kept`)."""
        return [self.captions.conditions(text) for text in texts]

    def keep_prompts(self, texts: Iterable[str]) -> None:
        """Encode captions for later, each once."""
        for text in dict.fromkeys(texts):
            self.captions.keep(text)

    def rest(self) -> None:
        """Give the device's memory back that only encoding needs: all pictures and captions to come are encoded."""
        networks = list(self.family.watcher.networks.values())
        for part in self.pipeline.components.values():
            if isinstance(part, nn.Module) and not any(part is network for network in networks):
                part.to("cpu")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def keep_step(self, rows: Collection[int], texts: Sequence[str]) -> None:
        """From here on, predictions of so many rows of these captions call the networks equally often.

        Processes with a share of the weights each need that of each other. The captions are in all processes the same
        ones in the same order; where their shapes differ, each row is called alone.
        """
        examples = {shapes(conditions): conditions for conditions in map(self.captions.conditions, texts)}
        self._predictor.one_by_one = len(examples) > 1
        for count in (1,) if self._predictor.one_by_one else sorted(set(rows)):
            x = torch.randn((count, *self.latent_shape), generator=torch.Generator().manual_seed(count))
            t = self.schedule.at((torch.arange(count, dtype=torch.float64) + 0.5) / count)
            for conditions in examples.values():
                with torch.no_grad():
                    self.predict(x.to(self.device), t.to(self.device), [conditions] * count, None)

    def predict(
        self, x_t: Tensor, t: Tensor, conditions: Sequence[Conditions], adapter: str | None = "default"
    ) -> Tensor:
        """The raw, unguided output (N, ...) in float32 with one adapter, or with None of the base alone."""
        with self.adapters.active(adapter):
            return self._predictor(x_t, t, conditions)

    @torch.no_grad()
    def errors(
        self, x0: Tensor, noise: Tensor, t: Tensor, texts: Sequence[str], adapter: str | None, batch_size: int = 32
    ) -> Tensor:
        """Denoising losses (N,), on the CPU: each item's mean squared error at its own (noise, t)."""
        parts = []
        for begin in range(0, len(x0), batch_size):
            rows = slice(begin, begin + batch_size)
            x, e, at = (tensor[rows].to(self.device) for tensor in (x0, noise, t))
            output = self.predict(self.schedule.add_noise(x, e, at), at, self.encode_prompts(texts[rows]), adapter)
            parts.append((output - self.schedule.target(x, e, at)).square().flatten(1).mean(dim=1).cpu())
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
        settings, rows = self._settings(serving), self.encode_prompts(prompts)
        against = self._negatives(serving.negative_prompt, settings)
        drawn: dict[int, Image] = {}
        for places in alike(rows):
            for begin in range(0, len(places), batch_size):
                batch = places[begin : begin + batch_size]
                given = joined([rows[place] for place in batch], self.device, self.family.rows)
                given |= joined([against for _ in batch], self.device, _as_positives(self.family.rows))
                given["generator"] = [torch.Generator().manual_seed(seeds[place]) for place in batch]
                with self.adapters.active(adapter), decoding_as_loaded(self.pipeline):
                    drawn |= zip(batch, self._call({**settings, **given}), strict=True)
        return [drawn[place] for place in range(len(prompts))]

    def _call(self, arguments: Values) -> list[Image]:
        """The pipeline's pictures; of a clip its first frame."""
        output = placed(self.pipeline, self.device)(**arguments)
        return [row[0] for row in output.frames] if hasattr(output, "frames") else list(output.images)

    def _settings(self, serving: Serving) -> Values:
        """The call's arguments that say how a line is served."""
        known, size = self.family.watcher.parameters, self.size
        settings = {
            **FIXED,
            "num_inference_steps": serving.num_inference_steps,
            self._guided_by: serving.guidance_scale,
            "width": serving.width or size[0],
            "height": serving.height or size[1],
            "output_type": "pil",
        }
        return {name: value for name, value in settings.items() if name in known and value is not None}

    @property
    def _guided_by(self) -> str:
        """Guidance is an input of the networks that were made for it, and otherwise two predictions' difference."""
        networks = self.family.watcher.networks.values()
        is_input = any(getattr(network.config, "guidance_embeds", False) for network in networks)
        has_both = "true_cfg_scale" in self.family.watcher.parameters
        return "true_cfg_scale" if has_both and not is_input else "guidance_scale"

    def _negatives(self, negative: str, settings: Values) -> Conditions:
        key = (negative, repr(sorted(settings.items())))
        if key not in self._against:
            self._against[key] = self.captions.against(negative, settings)
        return self._against[key]


@contextmanager
def decoding_as_loaded(pipeline: DiffusionPipeline) -> Iterator[None]:
    """Within it latents of another precision are decoded in the autoencoder's own, which overflows in half."""
    vae = autoencoder(pipeline)
    own: Callable[..., Any] = vae.decode
    vae.decode = lambda code, *args, **kwargs: own(code.to(vae.dtype), *args, **kwargs)
    try:
        yield
    finally:
        del vae.decode


def _code(encoded: Any) -> Tensor:
    """What an autoencoder encodes an image to, without its noise."""
    if hasattr(encoded, "latent_dist"):
        mode: Tensor = encoded.latent_dist.mode()
        return mode
    code: Tensor = encoded.latent if hasattr(encoded, "latent") else encoded.latents
    return code


def _as_positives(rows: Mapping[str, int]) -> dict[str, int]:
    """Which dimension has the rows in what guidance compares with."""
    return {f"{NEGATIVE}{name}": place for name, place in rows.items()}


def _decodes(name: str) -> bool:
    return name.startswith(DECODING)
