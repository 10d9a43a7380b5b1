"""Whether a base can be kept up to date here: asked once, before anything of a line is written.

`models.family` has found out what the pipeline is; here each thing that the loop will ask of it is done once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cl_steps.config import Lora, Serving
from cl_steps.errors import UsageError
from cl_steps.models.direct import tensors
from cl_steps.models.family import derive
from cl_steps.models.model import CANNOT, Denoiser
from cl_steps.models.placing import weights
from cl_steps.models.quantised import is_finite, stored
from cl_steps.models.watching import Size

CAPTIONS = ("1 red circle on a white table", "3 blue squares in the dark")
TRIED = "proof"
STEPS = 4
"""Steps of the one picture that is drawn: enough to see whether it is constant."""


@dataclass(frozen=True)
class Proof:
    """What was found out, as rows of a table."""

    rows: tuple[tuple[str, str], ...]

    def lines(self) -> Iterator[str]:
        """The table."""
        width = max(len(name) for name, _ in self.rows)
        for name, value in self.rows:
            yield f"{name:{width}}  {value}"


def prove(denoiser: Denoiser, lora: Lora) -> Proof:
    """Ask of a pipeline all that the loop will; leaves it as it was.

    Raises:
        UsageError: it does not do one of them; the sentence names which.
    """
    _check_weights(denoiser)
    _check_captions(denoiser)
    _check_prediction(denoiser)
    _check_learning(denoiser, lora)
    _check_picture(denoiser)
    return Proof(tuple(_rows(denoiser, _other_size(denoiser))))


def _refuse(what: str) -> UsageError:
    return UsageError(f"{CANNOT}{what}")


def _check_weights(denoiser: Denoiser) -> None:
    for name, part in denoiser.pipeline.components.items():
        if not isinstance(part, nn.Module):
            continue
        for key, weight in weights(part):
            if not is_finite(weight):
                raise _refuse(f"its {name} has weights that are no numbers, such as {key:.80}: fetch or save it again")


@torch.no_grad()
def _check_captions(denoiser: Denoiser) -> None:
    """Two captions are told apart."""
    one, other = denoiser.encode_prompts(CAPTIONS)
    if denoiser.captions.are_encoded and all(map(torch.equal, tensors(one), tensors(other))):
        raise _refuse("it makes the same of every caption")


@torch.no_grad()
def _check_prediction(denoiser: Denoiser) -> None:
    """Predictions are finite, and depend on latents, timestep and caption."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn((2, *denoiser.latent_shape), generator=random).to(denoiser.device)
    t = denoiser.schedule.at(torch.tensor([0.3, 0.8], dtype=torch.float64)).to(denoiser.device)
    rows = denoiser.encode_prompts(CAPTIONS)

    def of(latents: Tensor, at: Tensor, place: int) -> Tensor:
        return denoiser.predict(latents[:1], at[:1], rows[place : place + 1], None)

    own = of(x, t, 0)
    if not bool(own.isfinite().all()):
        raise _refuse("what it predicts is no number: in this precision, or at all (compute.precision)")
    for what, other in (
        ("the picture", of(x.flip(0), t, 0)),
        ("the timestep", of(x, t.flip(0), 0)),
        ("the caption", of(x, t, 1)),
    ):
        if torch.equal(own, other):
            raise _refuse(f"what it predicts does not depend on {what}")


def _check_learning(denoiser: Denoiser, lora: Lora) -> None:
    """An adapter changes nothing at first, and gets a gradient."""
    denoiser.adapters.add_fresh(TRIED, lora, seed=0)
    try:
        flat = denoiser.adapters.train(TRIED)
        x = torch.randn((1, *denoiser.latent_shape), generator=torch.Generator().manual_seed(1)).to(denoiser.device)
        t = denoiser.schedule.at(torch.tensor([0.5], dtype=torch.float64)).to(denoiser.device)
        rows = denoiser.encode_prompts(CAPTIONS[:1])
        with torch.no_grad():
            base = denoiser.predict(x, t, rows, None)
        with denoiser.adapters.active(TRIED):
            output = denoiser.predict(x, t, rows, TRIED)
            torch.autograd.backward(output.square().mean())
        if not torch.allclose(output, base, rtol=1e-2, atol=1e-2 * float(base.abs().max())):
            raise _refuse("an empty adapter changes what it predicts")
        if flat.grad is None or not bool(flat.grad.isfinite().all()) or not bool(flat.grad.any()):
            raise _refuse("no gradient reaches the layers of update.lora.target_modules: name others")
    finally:
        denoiser.adapters.remove(TRIED)


def _check_picture(denoiser: Denoiser) -> None:
    """It draws something, and its autoencoder bears what it draws."""
    [picture] = denoiser.sample(CAPTIONS[:1], [0], Serving(num_inference_steps=STEPS, guidance_scale=None), None)
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    if not np.isfinite(pixels).all() or pixels.std() < 1:
        raise _refuse("the picture that it draws is of one colour: its weights or their precision are wrong")
    latents = denoiser.encode_images([Image.new("RGB", denoiser.size, (200, 60, 30))])
    if not bool(latents.isfinite().all()):
        raise _refuse("its autoencoder does not encode a picture to numbers")


def _other_size(denoiser: Denoiser) -> Size | None:
    """Another size of picture that it takes, if one of those tried is."""
    width, height = denoiser.size
    for size in ((width, height // 2), (width * 2, height), (width, height * 3 // 4)):
        if _takes(denoiser, size):
            return size
    return None


def _takes(denoiser: Denoiser, size: Size) -> bool:
    try:
        derive(denoiser.pipeline, denoiser.device, size)
    except Exception:  # a pipeline may refuse a size in any way
        return False
    return True


def _rows(denoiser: Denoiser, other: Size | None) -> Iterator[tuple[str, str]]:
    family, network = denoiser.family, denoiser.family.watcher.networks
    held = [weight for part in network.values() for _, weight in weights(part)]
    parameters = sum(weight.numel() for weight in held)
    size = sum(own.numel() * own.element_size() for weight in held for own in stored(weight))
    conditions = denoiser.encode_prompts(CAPTIONS[:1])[0]
    lengths = {name: value for name, value in conditions.items() if isinstance(value, Tensor) and value.dim() == 3}
    yield "pipeline", type(denoiser.pipeline).__name__
    yield "network", " and ".join(f"{name} ({type(part).__name__})" for name, part in network.items())
    yield "predicts", f"{denoiser.schedule.prediction}, by {type(denoiser.pipeline.scheduler).__name__}"
    yield "pictures", f"{family.size[0]} x {family.size[1]}" + (f", also {other[0]} x {other[1]}" if other else " only")
    yield "latents", " x ".join(map(str, family.codes.latents))
    if not denoiser.captions.are_encoded:
        yield "captions", "encoded anew at each call, since its call takes no encoded ones: slow"
    else:
        yield "captions", ", ".join(f"{name} {value.shape[1]} x {value.shape[2]}" for name, value in lengths.items())
    yield "parameters", f"{parameters / 1e6:,.1f} million, {size / 2**20:,.0f} MiB as they are loaded"
