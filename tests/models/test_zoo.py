"""Each tiny pipeline of the zoo runs, quickly, and what it draws depends on all that it is given."""

from __future__ import annotations

from functools import lru_cache, wraps
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from tests.models.zoo import TINY, guidance_off
from tests.models.zoo.tiny import Size

LEAST = 1e-3
"""A change of what is given changes a prediction by this much of its own spread."""


class _StoppedError(Exception):
    """The pipeline has come to where its scheduler takes over."""


@lru_cache(maxsize=1)
def built(name: str) -> DiffusionPipeline:
    return TINY[name].build()


def draw(name: str, size: Size, output: str, number: int = 1, **changes: object) -> Any:
    tiny, pipeline = TINY[name], built(name)
    arguments = guidance_off(pipeline) | {"num_inference_steps": 2, "return_dict": False}
    arguments |= {
        "width": size[0],
        "height": size[1],
        "output_type": output,
        "generator": torch.Generator().manual_seed(0),
    }
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
        assert torch.isfinite(draw(name, (width, height), "latent")).all()
        drawn = np.asarray(draw(name, (width, height), "np"))
        assert drawn.shape[-3:] == (height, width, 3)
        assert np.isfinite(drawn).all()
        assert drawn.std() > 0.01


@pytest.mark.parametrize("name", TINY)
def test_a_prediction_depends_on_noise_timestep_and_caption(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prediction(name, monkeypatch)
    assert torch.isfinite(first).all()
    assert change(first, prediction(name, monkeypatch)) == 0
    assert change(first, prediction(name, monkeypatch, generator=noise(1))) > LEAST
    assert change(first, prediction(name, monkeypatch, **second_caption(name))) > LEAST
    halve_times(built(name).scheduler, monkeypatch)
    assert change(first, prediction(name, monkeypatch)) > LEAST


def second_caption(name: str) -> dict[str, Any]:
    """The second of two rows: the first one is that of a single row."""
    one, two = TINY[name].conditions(1), TINY[name].conditions(2)
    assert all(value is None or torch.equal(value[0], two[key][0]) for key, value in one.items())
    return {key: value if value is None else value[1:] for key, value in two.items()}


def halve_times(scheduler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    set_timesteps = scheduler.set_timesteps

    @wraps(set_timesteps)
    def halved(*arguments: object, **named: object) -> None:
        set_timesteps(*arguments, **named)
        scheduler.timesteps = (scheduler.timesteps * 0.5).to(scheduler.timesteps.dtype)

    monkeypatch.setattr(scheduler, "set_timesteps", halved)


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
