"""What the trial measures, in the order of its worth; a section has a box of time and yields figure after figure."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image

from cl_steps.config import Lora, Serving
from cl_steps.learning.methods.method import STUDENT
from cl_steps.models.captions import caption_name
from cl_steps.models.model import Denoiser
from cl_steps.models.quantised import quantise
from cl_steps.models.targets import attention_targets
from tests.benchmarks.beside import Batch, Step, add_peft, captions, encoded, latents_of, ours, theirs
from tests.gpu.trial.models import MINIATURE, REAL, Hold, Model
from tests.gpu.trial.theirs import ENCODERS, GUIDANCE, SCRIPTS
from tests.gpu.trial.timing import QUICK, STEADY, Pace, Timed, timed

RANK = 16
GIB = 2**30
SAMPLED, SAMPLING_STEPS = 4, 20
BITS = ("fp8", "nf4")
CACHED = "latents and captions encoded before"


class NotThereYet(Exception):
    """What a section would measure is still to be built; the sentence says what."""


@dataclass(frozen=True)
class Figure:
    """As `Scoreboard.record` takes it."""

    name: str
    value: float
    unit: str
    form: str
    goal: str | None = None


@dataclass(frozen=True)
class Setting:
    """Where it is measured, and in what precision.

    Attributes:
        is_miniature: the same code on models that a CPU computes in no time; its figures are no claims.
    """

    device: torch.device
    is_miniature: bool
    dtype: torch.dtype = torch.bfloat16

    @property
    def models(self) -> Mapping[str, Model]:
        """By name."""
        return MINIATURE if self.is_miniature else REAL

    @property
    def pace(self) -> Pace:
        """Of steps."""
        return QUICK if self.is_miniature else STEADY


@dataclass(frozen=True)
class Section:
    """A part of the trial, and how many seconds it may take."""

    figures: Callable[[Setting], Iterator[Figure]]
    seconds: float


def learning(name: str, setting: Setting) -> Iterator[Figure]:
    """Steps of LoRA on latents and captions that both sides have encoded before: ours, and those of their script."""
    model = setting.models[name]
    denoiser, lora = _opened(model, setting)
    form = _form(model, setting, CACHED)
    plain = yield from _our_steps(name, denoiser, lora, setting, form)
    with _kernels_as_torch_has_them():
        script = timed(lambda: _their_step(name, denoiser, model, lora, setting), setting.device, setting.pace)
    yield Figure(f"models/{name}, a step of diffusers' script", 1 / script.seconds, "steps/s", form)
    yield Figure(f"models/{name}, a step of diffusers' script, memory", script.peak_bytes / GIB, "GiB", form)
    ratio = script.seconds / plain.seconds
    yield Figure(f"models/{name}, a plain step of LoRA: diffusers / ours", ratio, "", form, ">= 1.5")


def _our_steps(
    name: str, denoiser: Denoiser, lora: Lora, setting: Setting, form: str
) -> Generator[Figure, None, Timed]:
    """Plain ones, and those with replay and distillation at the same total batch; returns what a plain one takes."""
    denoiser.encode_prompts(("", *captions()))
    denoiser.rest()
    batch = setting.models[name].batch
    plain = our_step(denoiser, lora, batch, setting)
    yield Figure(f"models/{name}, a plain step of LoRA", 1 / plain.seconds, "steps/s", form)
    goal = "<= 24" if name == "SDXL" else None
    yield Figure(f"models/{name}, a plain step of LoRA, memory", plain.peak_bytes / GIB, "GiB", form, goal)
    both = our_step(denoiser, lora, batch, setting, replays=True)
    replaying = "a step of LoRA with replay and distillation"
    yield Figure(f"models/{name}, {replaying}", 1 / both.seconds, "steps/s", form)
    yield Figure(f"models/{name}, {replaying}, memory", both.peak_bytes / GIB, "GiB", form, goal)
    yield Figure(f"models/{name}, {replaying} / a plain one", both.seconds / plain.seconds, "", form, "<= 1.2")
    return plain


def as_the_script(name: str, setting: Setting) -> Iterator[Figure]:
    """As their script does it, autoencoder and text encoders in the loop, beside ours, which encodes once before."""
    model = setting.models[name]
    denoiser, lora = _opened(model, setting)
    form = _form(model, setting, "theirs encodes in its loop")
    picture = Image.new("RGB", (model.side, model.side))
    once = timed(lambda: lambda: _encode_anew(denoiser, picture), setting.device, QUICK)
    yield Figure(
        f"models/{name}, encoding pictures and captions once", denoiser.encoded_at_once / once.seconds, "images/s", form
    )
    plain = our_step(denoiser, lora, model.batch, setting)
    draw = ENCODERS[name](denoiser.pipeline, model.batch, setting.dtype, model.side)
    with _kernels_as_torch_has_them():
        made = partial(_their_step, name, denoiser, model, lora, setting, draw)
        script = timed(made, setting.device, setting.pace)
    yield Figure(f"models/{name}, a step of diffusers' script", 1 / script.seconds, "steps/s", form)
    yield Figure(f"models/{name}, a step of diffusers' script, memory", script.peak_bytes / GIB, "GiB", form)
    yield Figure(f"models/{name}, a plain step of LoRA: diffusers / ours", script.seconds / plain.seconds, "", form)


def sampling(name: str, setting: Setting) -> Iterator[Figure]:
    """Pictures by the line's way to draw them, with an adapter, and by the pipeline's own call with peft's layers."""
    model = setting.models[name]
    denoiser, lora = _opened(model, setting)
    steps = 2 if setting.is_miniature else SAMPLING_STEPS
    form = f"{model.side} px, {SAMPLED} at a time, {steps} steps, guidance {GUIDANCE}, {_dtype(setting)}"
    serving = Serving(num_inference_steps=steps, guidance_scale=GUIDANCE, width=model.side, height=model.side)
    prompts = list(captions()[:SAMPLED])
    denoiser.adapters.add_fresh(STUDENT, lora, 0)
    measure = partial(timed, device=setting.device, pace=QUICK)
    own = measure(lambda: lambda: denoiser.sample(prompts, range(SAMPLED), serving, STUDENT, SAMPLED))
    yield Figure(f"models/{name}, sampling", SAMPLED / own.seconds, "images/s", form)
    yield Figure(f"models/{name}, sampling, memory", own.peak_bytes / GIB, "GiB", form)
    pipeline = denoiser.pipeline
    pipeline.vae.to(setting.dtype)
    add_peft(next(iter(denoiser.family.watcher.networks.values())), lora)
    asked = {"num_inference_steps": steps, "guidance_scale": GUIDANCE, "width": model.side, "height": model.side}
    with _kernels_as_torch_has_them():
        plain = measure(lambda: lambda: pipeline(prompt=prompts, **asked))
    theirs_form = f"{form}, the autoencoder too"
    yield Figure(f"models/{name}, sampling by diffusers with peft", SAMPLED / plain.seconds, "images/s", theirs_form)


def quantised(name: str, setting: Setting) -> Iterator[Figure]:
    """Our steps on a base that holds its weights in fewer bits (`compute.base`); of diffusers' scripts none does so."""
    model = setting.models[name]
    for bits in BITS:
        denoiser, lora = _opened(model, setting, partial(quantise, bits=bits, device=setting.device))
        yield from _our_steps(name, denoiser, lora, setting, _form(model, setting, f"base in {bits}, {CACHED}"))


def class_conditional(setting: Setting) -> Iterator[Figure]:
    """The learning benchmark on a GPU."""
    raise NotThereYet("the learning benchmark")


SECTIONS: Mapping[str, Section] = {
    "SDXL": Section(partial(learning, "SDXL"), 110),
    "SD 1.5": Section(partial(learning, "SD 1.5"), 60),
    "Flux of 2 B": Section(partial(learning, "Flux of 2 B"), 90),
    "SDXL, quantised": Section(partial(quantised, "SDXL"), 100),
    "Flux of 2 B, quantised": Section(partial(quantised, "Flux of 2 B"), 100),
    "SDXL, as the script": Section(partial(as_the_script, "SDXL"), 80),
    "SDXL, sampling": Section(partial(sampling, "SDXL"), 60),
    "SD 1.5, as the script": Section(partial(as_the_script, "SD 1.5"), 50),
    "SD 1.5, quantised": Section(partial(quantised, "SD 1.5"), 60),
    "SD 1.5, sampling": Section(partial(sampling, "SD 1.5"), 40),
    "Flux of 2 B, sampling": Section(partial(sampling, "Flux of 2 B"), 40),
    "learning": Section(class_conditional, 500),
}
"""The whole of them is more than there is time for where each takes all of its own: the last ones give way."""


def _opened(model: Model, setting: Setting, hold: Hold | None = None) -> tuple[Denoiser, Lora]:
    denoiser = model.open(setting.device, setting.dtype, hold)
    return denoiser, Lora(rank=RANK, alpha=RANK, target_modules=attention_targets(denoiser.family.watcher.networks))


def our_step(denoiser: Denoiser, lora: Lora, batch: int, setting: Setting, *, replays: bool = False) -> Timed:
    """What a step of ours takes.

    Raises:
        UsageError: some gradient was not finite, so that it was no step.
    """
    learner = ours(denoiser, lora, batch, replays=replays)
    found = timed(lambda: learner.advance, setting.device, setting.pace)
    learner.state()
    return found


def _their_step(
    name: str, denoiser: Denoiser, model: Model, lora: Lora, setting: Setting, draw: Batch | None = None
) -> Step:
    """A step of the script, on the network that ours had.

    Raises:
        AssertionError: it trains another number of weights than ours.
    """
    (network,) = denoiser.family.watcher.networks.values()
    parameters = add_peft(network, lora)
    assert sum(weight.numel() for weight in parameters) == denoiser.adapters.flat(STUDENT).numel()
    for adapter in denoiser.adapters.names:
        denoiser.adapters.remove(adapter)
    shape = tuple(denoiser.family.codes.code)
    rows = draw or encoded(denoiser, model.batch, latents_of(denoiser, shape).to(setting.dtype))
    return theirs(SCRIPTS[name](denoiser.pipeline, rows, setting.dtype, model.side), parameters)


@contextmanager
def _kernels_as_torch_has_them() -> Iterator[None]:
    """Within it convolutions need not be repeatable, as ours are (`choose_device`)."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=True):
        yield


def _encode_anew(denoiser: Denoiser, picture: Image.Image) -> None:
    """As many pictures as are encoded at a time, and as many captions, of which none is known yet."""
    denoiser.encode_images([picture] * denoiser.encoded_at_once)
    for text in captions()[: denoiser.encoded_at_once]:
        denoiser.captions.kept.pop(caption_name(text), None)
        denoiser.encode_prompts([text])


def _form(model: Model, setting: Setting, what: str) -> str:
    return f"{model.side} px, batch {model.batch}, rank {RANK} on the attention, {_dtype(setting)}, {what}"


def _dtype(setting: Setting) -> str:
    return str(setting.dtype).removeprefix("torch.")
