"""Every pipeline class of the zoo is what the loop needs, by watching alone; nothing here or there knows a family."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cl_steps.config import Lora
from cl_steps.errors import UsageError
from cl_steps.learning.methods.distillation import Distillation
from cl_steps.learning.methods.method import TEACHER, Forward
from cl_steps.models.captions import Captions, caption_name, parts_of
from cl_steps.models.family import Family, derive, resized
from cl_steps.models.latents import Finished
from cl_steps.models.model import Denoiser
from cl_steps.models.prediction import Predictor
from cl_steps.models.targets import attention_targets
from cl_steps.models.watching import NetworkCall
from tests.models.pipelines import README, REFUSED, TAKEN, is_loaded, written
from tests.models.zoo import TINY, guidance_off
from tests.tiny import disturb

CPU = torch.device("cpu")
STEPS = 20
ROUND_TRIP = 1e-5
ROUNDED = {"Cosmos2_5_PredictBasePipeline": 2e-3}
"""Classes whose own sampler rounds the timestep that it tells its scheduler, and not its network's."""
EVERY = pytest.mark.parametrize("name", TAKEN)
TWO_SIZES = pytest.mark.parametrize("place", [0, 1])


@lru_cache(maxsize=1)
def built(name: str) -> Any:
    pipeline = TINY[name].build()
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    return pipeline


@lru_cache(maxsize=2)
def family(name: str, place: int = 0) -> Family:
    tiny = TINY[name]
    return derive(built(name), CPU, tiny.sizes[place], tiny.conditions, tiny.arguments)


def rows(name: str, number: int) -> list[dict[str, Any]]:
    """Conditions of `number` captions, one by one."""
    own, together = family(name), TINY[name].conditions(number)
    if "prompt" in together:
        captions = Captions(own.watcher, own.size)
        return [dict(captions.conditions(text)) for text in together["prompt"]]  # type: ignore[attr-defined]
    if not all(isinstance(value, list) or key in own.rows for key, value in together.items()):
        return [TINY[name].conditions(1)] * number
    return [{key: row_of(value, own.rows.get(key, 0), row) for key, value in together.items()} for row in range(number)]


def row_of(value: Any, place: int, row: int) -> Any:
    return value.narrow(place, row, 1) if isinstance(value, Tensor) else value[row : row + 1]


def model(name: str) -> Denoiser:
    """A denoiser with the adapters of student and teacher, both empty; captions are `rows`, by number."""
    denoiser = Denoiser(built(name), CPU, family=family(name))
    encoded = {str(row): own for row, own in enumerate(rows(name, 2)) if "prompt" not in own}
    denoiser.captions.kept = {caption_name(text): parts_of(own) for text, own in encoded.items()}
    lora = Lora(rank=2, alpha=4, target_modules=attention_targets(denoiser.family.watcher.networks))
    for adapter in ("default", TEACHER):
        denoiser.adapters.add_fresh(adapter, lora, seed=0)
    return denoiser


def random_latents(own: Family, number: int, seed: int = 0) -> Tensor:
    return torch.randn((number, *own.codes.latents), generator=torch.Generator().manual_seed(seed))


class Steps:
    """The loop of a pipeline's own sampling, seen from its scheduler: (given to the network, timestep, prediction)."""

    def __init__(self, name: str, place: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []
        self.scaled: Tensor | None = None
        pipeline, tiny = built(name), TINY[name]
        own_step, own_scale = pipeline.scheduler.step, getattr(pipeline.scheduler, "scale_model_input", None)

        def step(output: Tensor, t: Tensor, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
            given = sample if self.scaled is None else self.scaled
            # Some pipelines write the next latents into these.
            self.seen.append((given.clone(), t, output))
            return own_step(output, t, sample, *args, **kwargs)

        def scale(sample: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            # Guidance is off, and latents are not doubled.
            self.scaled = own_scale(sample, *args, **kwargs)
            return self.scaled

        width, height = tiny.sizes[place]
        with monkeypatch.context() as patch, torch.no_grad():
            patch.setattr(pipeline.scheduler, "step", step)
            if own_scale is not None:
                patch.setattr(pipeline.scheduler, "scale_model_input", scale)
            arguments = {**guidance_off(pipeline), **tiny.arguments, **tiny.conditions(number)}
            random = [torch.Generator().manual_seed(row) for row in range(number)]
            pipeline(
                width=width, height=height, num_inference_steps=3, generator=random, output_type="latent", **arguments
            )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return iter(self.seen)


@EVERY
@TWO_SIZES
def test_a_prediction_is_that_of_the_pipelines_own_sampling(
    name: str, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = family(name, place)
    predict = Predictor(own)
    predict(random_latents(own, 2), own.schedule.at(torch.tensor([0.1, 0.9])), rows(name, 2))
    number = max((key[0][0] for key, way in predict.ways.items() if not way.by_row), default=1)
    steps = list(Steps(name, place, number, monkeypatch))
    assert len(steps) >= 3
    for latents, t, expected in steps:
        found = predict(latents, t.expand(number), rows(name, number))
        assert float((found - expected).abs().max()) <= ROUNDED.get(name, 0)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_refused_with_what_is_missing(name: str) -> None:
    with pytest.raises(UsageError, match=REFUSED[name]):
        family(name)


@EVERY
@TWO_SIZES
def test_the_latents_of_a_code_are_decoded_from_that_code(name: str, place: int) -> None:
    own = family(name, place)
    code = torch.randn((1, *own.codes.code), generator=torch.Generator().manual_seed(0))
    latents = own.codes.latents_of(code)
    assert latents.shape[1:] == own.codes.latents
    script = Finished(latents, own.schedule.at(torch.tensor([0.5])), dict.fromkeys(own.watcher.networks))
    script.on_network = NetworkCall.run  # type: ignore[method-assign, assignment]
    with torch.no_grad():
        decoded = own.watcher.watch(script, own.size, TINY[name].conditions(1))
    assert float((decoded.reshape(code.shape) - code).abs().max()) <= ROUND_TRIP * float(code.abs().max())


@EVERY
def test_another_size_is_derived_from_the_first_as_by_itself(name: str) -> None:
    other = family(name, 1)
    found = resized(family(name), other.size, TINY[name].conditions)
    assert (found.size, found.codes.latents, found.codes.code) == (other.size, other.codes.latents, other.codes.code)
    for value in ("places", "scale", "shift"):
        assert torch.equal(getattr(found.codes, value), getattr(other.codes, value))


@EVERY
def test_an_adapter_learns_and_a_teacher_who_is_the_student_finds_nothing(name: str) -> None:
    denoiser = model(name)
    x0, noise = random_latents(denoiser.family, 2), random_latents(denoiser.family, 2, seed=1)
    t = denoiser.schedule.at(torch.tensor([0.3, 0.7], dtype=torch.float64))
    x_t, target = denoiser.schedule.add_noise(x0, noise, t), denoiser.schedule.target(x0, noise, t)
    conditions, losses = denoiser.encode_prompts(["0", "1"]), []
    output = denoiser.predict(x_t, t, conditions, "default")
    assert float(Distillation(1.0)(denoiser, Forward(x_t, t, conditions, output, 0))) == 0
    student = denoiser.adapters.train("default")
    optimizer = torch.optim.Adam([student], 3e-2)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = (denoiser.predict(x_t, t, conditions, "default") - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@pytest.mark.filterwarnings("ignore:While injecting the PEFT adapters:RuntimeWarning")
@EVERY
def test_diffusers_draws_the_same_with_the_saved_adapter(name: str, tmp_path: Path) -> None:
    denoiser, tiny = model(name), TINY[name]
    pipeline = denoiser.pipeline
    if not is_loaded(name):
        pytest.skip("diffusers loads no adapter into this class")
    disturb(denoiser, "default")
    denoiser.adapters.save("default", tmp_path)

    def drawn() -> Tensor:
        arguments = {**guidance_off(pipeline), **tiny.arguments, **tiny.conditions(1), "output_type": "latent"}
        width, height = tiny.sizes[0]
        random = torch.Generator().manual_seed(0)
        return torch.as_tensor(
            pipeline(
                width=width, height=height, num_inference_steps=2, generator=random, return_dict=False, **arguments
            )[0]
        )

    plain = drawn()
    with denoiser.adapters.active("default"):
        ours = drawn()
    assert not torch.allclose(plain, ours, rtol=1e-3, atol=1e-4)
    built.cache_clear()
    pipeline = built(name)
    pipeline.load_lora_weights(tmp_path)
    try:
        torch.testing.assert_close(drawn(), ours, rtol=1e-3, atol=1e-4)
    finally:
        built.cache_clear()
        family.cache_clear()


def test_the_readme_names_every_class() -> None:
    readme = README.read_text(encoding="utf-8")
    assert readme == written(readme), "python -m tests.models.pipelines"
