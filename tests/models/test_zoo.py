"""Each tiny pipeline of the zoo runs, quickly, and what it draws depends on all that it is given."""

from __future__ import annotations

import inspect
import re
from functools import lru_cache, wraps
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from tests.models.zoo import LEFT_OUT, TINY, guidance_off
from tests.models.zoo.tiny import Size

LEAST = 1e-3
"""A change of what is given changes a prediction by this much of its own spread."""
OTHER_TASKS = re.compile(
    "Img2Img|I2I|Inpaint|Edit|Pix2Pix|Depth2Img|Control|Adapter|Upscale|SuperResolution"
    "|ImageToVideo|Image2Video|(?<!T)I2V|VideoToVideo|Audio|Prior|Decoder|PAG"
)
"""What the name of a class says that does something else than draw from a text (PAG: the same with other guidance)."""


class _StoppedError(Exception):
    """The pipeline has come to where its scheduler takes over."""


@lru_cache(maxsize=1)
def built(name: str) -> DiffusionPipeline:
    return TINY[name].build()


def draw(name: str, size: Size, output: str, number: int = 1, **changes: object) -> Any:
    tiny, pipeline = TINY[name], built(name)
    arguments = guidance_off(pipeline) | {"num_inference_steps": 2, "return_dict": False}
    arguments |= {"width": size[0], "height": size[1], "output_type": output, "generator": noise(0)}
    return pipeline(**arguments | dict(tiny.arguments) | tiny.conditions(number) | changes)[0]


def prediction(name: str, monkeypatch: pytest.MonkeyPatch, **changes: object) -> torch.Tensor:
    """What reaches the scheduler's first step."""
    seen: list[torch.Tensor] = []

    def step(model_output: torch.Tensor, *_: object, **__: object) -> None:
        seen.append(model_output)
        raise _StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(built(name).scheduler, "step", step)
        with pytest.raises(_StoppedError):
            draw(name, TINY[name].sizes[0], "latent", **changes)
    return seen[0]


def noise(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def change(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).std() / one.std())


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_pipeline_draws_at_both_sizes(name: str) -> None:
    for width, height in TINY[name].sizes:
        assert np.isfinite(np.asarray(draw(name, (width, height), "latent", number=2))).all()
        drawn = np.asarray(draw(name, (width, height), "np"))
        assert drawn.shape[-3:-1] == (height, width)
        assert drawn.shape[-1] in {3, 4}
        assert np.isfinite(drawn).all()
        assert drawn.std() > 0.03


@pytest.mark.parametrize("name", TINY)
def test_its_autoencoder_takes_a_picture_to_what_it_decodes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents of pictures are made by it; IF and PRX of pixels have none."""
    vae = getattr(built(name), "movq", None) or getattr(built(name), "vae", None)
    if vae is None:
        return
    codes: list[torch.Tensor] = []
    decode = vae.decode
    monkeypatch.setattr(vae, "decode", lambda code, *more, **named: codes.append(code) or decode(code, *more, **named))
    pixels = 2 * torch.as_tensor(draw(name, TINY[name].sizes[1], "pt")) - 1
    with torch.no_grad():
        encoded = vae.encode(as_a_batch_for(codes[0], pixels))
    code = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded[0]
    assert code.shape == codes[0].shape
    assert torch.isfinite(code).all()
    assert code.std() > 0.01


def as_a_batch_for(code: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Pictures (N, C, H, W) or videos (N, F, C, H, W) as a code (N, C, H, W) or (N, C, F, H, W) has them."""
    if pixels.ndim == code.ndim == 4:
        return pixels
    if pixels.ndim == 4:
        return pixels[:, :, None]
    return pixels.transpose(1, 2) if code.ndim == 5 else pixels.flatten(0, 1)


@pytest.mark.parametrize("name", TINY)
def test_a_prediction_depends_on_noise_timestep_and_caption(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prediction(name, monkeypatch)
    assert torch.isfinite(first).all()
    assert change(first, prediction(name, monkeypatch)) == 0
    assert change(first, prediction(name, monkeypatch, generator=noise(1))) > LEAST
    for key, value in second_caption(name).items():
        if isinstance(value, list) or value.is_floating_point():  # some pipelines take masks and do nothing with them
            assert change(first, prediction(name, monkeypatch, **{key: value})) > LEAST, key
    turn_times_round(built(name).scheduler, monkeypatch)
    assert change(first, prediction(name, monkeypatch)) > LEAST


def second_caption(name: str) -> dict[str, Any]:
    """The second of two rows; the first is what a single row is."""
    one, two = TINY[name].conditions(1), TINY[name].conditions(2)
    assert one.keys() == two.keys()
    return {key: second_row(one[key], two[key]) for key in one}


def second_row(one: Any, two: Any) -> Any:
    if isinstance(one, list):
        assert torch.equal(one[0], two[0]) if torch.is_tensor(one[0]) else one[0] == two[0]
        return two[1:]
    along = [place for place, sizes in enumerate(zip(one.shape, two.shape, strict=True)) if sizes == (1, 2)]
    if not along:
        return one
    assert torch.equal(one, two.narrow(along[0], 0, 1))
    return two.narrow(along[0], 1, 1)


def turn_times_round(scheduler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begins with the last timestep."""
    set_timesteps = scheduler.set_timesteps

    @wraps(set_timesteps)
    def turned(*arguments: object, **named: object) -> None:
        set_timesteps(*arguments, **named)
        scheduler.timesteps = scheduler.timesteps.flip(0)
        if hasattr(scheduler, "sigmas"):
            scheduler.sigmas = torch.cat([scheduler.sigmas[:-1].flip(0), scheduler.sigmas[-1:]])

    monkeypatch.setattr(scheduler, "set_timesteps", turned)


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_pipeline_is_the_same_each_time(name: str) -> None:
    state = torch.get_rng_state()
    once, again = built(name), TINY[name].build()
    assert torch.equal(torch.get_rng_state(), state)
    for one, other in zip(networks(once), networks(again), strict=True):
        assert not one.training
        for weight, same in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
            assert torch.equal(weight, same)
            assert weight.dtype in {torch.float32, torch.int64}


def networks(pipeline: DiffusionPipeline) -> list[torch.nn.Module]:
    return [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]


def test_every_class_that_draws_from_a_text_is_in_the_zoo_or_left_out_for_a_reason() -> None:
    """A class that is new in a later diffusers wants a line in one of the tables."""
    named = {name.partition(" ")[0] for name in TINY}
    assert not named & LEFT_OUT.keys()
    assert {name for name in dir(diffusers) if draws_from_a_text(name)} <= named | LEFT_OUT.keys()
    assert all(hasattr(diffusers, name) for name in named | LEFT_OUT.keys())


def draws_from_a_text(name: str) -> bool:
    """By its signature (a prompt is all that it may require) and its name; what diffusers calls deprecated is not."""
    kind = getattr(diffusers, name) if name.endswith("Pipeline") else None
    if not (inspect.isclass(kind) and issubclass(kind, DiffusionPipeline)) or ".deprecated." in kind.__module__:
        return False
    takes = inspect.signature(kind.__call__).parameters
    required = {
        one.name for one in takes.values() if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
    }
    another_task = name not in TINY and OTHER_TASKS.search(name) is not None
    return "prompt" in takes and required <= {"self", "prompt"} and not another_task
