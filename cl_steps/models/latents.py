"""The latents of an image, in the form in which the pipeline's loop has them.

What a pipeline hands to `vae.decode` is its latents in another order, scaled and shifted element by element (unpacked,
un-normalised). Three calls tell order, scale and shift; inverted, they turn what `vae.encode` gives into latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cl_steps.errors import UsageError
from cl_steps.models.watching import NetworkCall, Script, Size, Watcher

DIGIT = 512
"""Places are asked for in digits of this base, which every float32 on the way keeps apart."""
ROUND_TRIP = 1e-5
"""How far latents may be from themselves after decoding's way and back, relative to their size."""


@dataclass
class Finished(Script):
    """A loop of one step that ends with latents of ours."""

    latents: Tensor
    timesteps: Tensor
    blank: Mapping[str, Any]

    def on_network(self, call: NetworkCall) -> Any:
        """See `Script`."""
        return self.blank[call.name]

    def on_step(self, output: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """See `Script`."""
        del output, t
        assert sample.shape == self.latents.shape
        # In float32, which keeps places apart that half precision would not.
        return self.latents


@dataclass(frozen=True)
class CodeMap:
    """code = (latents.flatten()[places] * scale + shift).view(shape), of one item.

    Attributes:
        latents: their shape, without rows.
        code: the shape of what the autoencoder encodes to and decodes from, without rows.
    """

    latents: torch.Size
    code: torch.Size
    places: Tensor
    scale: Tensor
    shift: Tensor

    def latents_of(self, codes: Tensor) -> Tensor:
        """Codes (N, *code) as latents (N, *latents)."""
        flat = (codes.reshape(len(codes), -1) - self.shift) / self.scale
        latents = torch.empty_like(flat)
        latents[:, self.places] = flat
        return latents.reshape(len(codes), *self.latents)

    def code_of(self, latents: Tensor) -> Tensor:
        """Latents (N, *latents) as codes (N, *code)."""
        flat = latents.reshape(len(latents), -1)[:, self.places] * self.scale + self.shift
        return flat.reshape(len(latents), *self.code)


@torch.no_grad()
def code_map(
    watcher: Watcher, size: Size, given: Mapping[str, Any], like: Tensor, t: Tensor, blank: Mapping[str, Any]
) -> CodeMap:
    """What happens between the loop's last latents, which are `like` these (1, ...), and the autoencoder.

    `blank` is like what each network gives at t: none is called.

    Raises:
        UsageError: it is more than another order, a scale and a shift.
    """

    def decoded(latents: Tensor) -> Tensor:
        code = watcher.watch(Finished(latents.view_as(like), t[None], blank), size, given)
        if not isinstance(code, Tensor):
            raise UsageError("its call ends without an autoencoder that decodes its latents")
        return code.float()

    count = torch.arange(like.numel(), dtype=torch.float32)
    shift = decoded(torch.zeros_like(count))
    scale = decoded(torch.ones_like(count)) - shift
    if shift.numel() != like.numel() or not bool((scale != 0).all()):
        raise UsageError("what it decodes is not as large as its latents, so that pictures cannot be turned into them")
    digits, places = count.long(), torch.zeros(like.numel(), dtype=torch.int64)
    weight = 1
    while weight < like.numel():
        digit = (digits // weight % DIGIT).float()
        places += ((decoded(digit) - shift) / scale).round().long().flatten() * weight
        weight *= DIGIT
    if not torch.equal(places.sort().values, count.long()):
        raise UsageError("what it decodes mixes its latents, so that pictures cannot be turned into them")
    # Some autoencoders of clips are given frames as rows.
    shape = shift.shape[1:] if shift.shape[0] == 1 else shift.shape
    found = CodeMap(like.shape[1:], shape, places, scale.flatten(), shift.flatten())
    random = torch.randn(like.shape, generator=torch.Generator().manual_seed(0))
    code = decoded(random)
    if float((found.latents_of(code.reshape(1, *shape)) - random).abs().max()) > ROUND_TRIP * float(random.abs().max()):
        raise UsageError("its way to the autoencoder is not a scale and a shift of each number")
    return found
