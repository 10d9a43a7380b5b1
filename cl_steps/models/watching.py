"""A pipeline's own call, watched: what it does with latents, timesteps and captions is seen, not known beforehand.

The call runs as its users run it, with two things replaced for as long as it is watched: the scheduler, by one whose
timesteps, `step` and `scale_model_input` are ours, and the networks of the denoising loop, whose calls are seen. So
packing, position ids, signs, guidance embeddings and added conditions are diffusers' own, for every family.

    N rows; the latents are in the form in which the loop has them (what `scheduler.step` is given), packed or not
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

Values = dict[str, Any]
"""Arguments by name."""
Size = tuple[int, int]
"""(width, height) in pixels."""

TEXTS = ("prompt", "negative_prompt")
OURS = ("latents", "timesteps", "sigmas", "generator", "num_inference_steps")
"""Arguments of a call that are no conditions of a caption."""
NOT_DENOISING = ("encode", "decode")
"""A part with one of these is an autoencoder."""
FIXED: Mapping[str, Any] = {"use_resolution_binning": False, "num_frames": 1}
"""What a call is told wherever it can be: the size is ours, and a picture is one frame."""


class Stopped(BaseException):
    """Ends a watched call; not an Exception, so that no pipeline takes it for one of its own."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


class Previous(tuple[Tensor, Tensor]):
    """What `scheduler.step` returns, in all ways in which pipelines read it; few-step samplers give a second one."""

    @property
    def prev_sample(self) -> Tensor:
        """The latents after the step."""
        return self[0]


@dataclass(frozen=True)
class NetworkCall:
    """A call of one of the networks: its name among the pipeline's parts, its own forward pass, and the arguments."""

    name: str
    own: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Values

    def run(self) -> Any:
        """What the network gives."""
        return self.own(*self.args, **self.kwargs)


class Script:
    """What happens at the places where a watched call meets us; each subclass changes what it looks at.

    Attributes:
        timesteps: (S,) or (S, N), what the loop goes through; None leaves the scheduler's own.
        sigmas: what a pipeline sees that asks the scheduler for its noise levels; None shows those of a flow.
    """

    timesteps: Tensor | None
    sigmas: tuple[float, ...] | None = None

    def on_timesteps(self, scheduler: Any) -> None:
        """After the loop's timesteps were set."""

    def on_network(self, call: NetworkCall) -> Any:
        """In place of a network's forward pass."""
        return call.run()

    def on_step(self, output: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """In place of the scheduler's step: the latents of the next one."""
        del output, t
        return sample

    def on_decode(self, code: Tensor) -> Any:
        """In place of the autoencoder's decoding."""
        raise Stopped(code)


@dataclass(frozen=True)
class Watcher:
    """Runs the call of a pipeline under a script.

    Attributes:
        networks: the parts whose calls are seen, by name; all that could be one until the loop's are known.
        device: where latents are made.
        settings: arguments of every call: guidance off, and what `FIXED` says.
    """

    pipeline: DiffusionPipeline
    networks: Mapping[str, nn.Module]
    device: torch.device
    settings: Values = field(default_factory=dict)

    @property
    def call(self) -> Callable[..., Any]:
        """The pipeline's `__call__` without the decorator that takes gradients away."""
        own: Callable[..., Any] = inspect.unwrap(type(self.pipeline).__call__)
        return own

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """Of `call`, without `self`."""
        return dict(list(inspect.signature(self.call).parameters.items())[1:])

    def watch(self, script: Script, size: Size | None, given: Mapping[str, Any]) -> Any:
        """Call the pipeline with the arguments given, None for its own size; returns what the script stopped with.

        The call's arguments are those of `settings`, then those given; a caption that is not given is None.
        """
        known = self.parameters
        # A pipeline may write into a list of captions that it is given.
        given = {name: list(value) if isinstance(value, list) else value for name, value in given.items()}
        arguments: Values = {name: None for name in TEXTS if name in known}
        arguments |= {name: value for name, value in FIXED.items() if name in known}
        arguments |= dict(zip(("width", "height"), size, strict=True)) if size else {}
        arguments |= {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(0)}
        arguments = {name: value for name, value in (arguments | self.settings | given).items() if name in known}
        with self._replaced(script) as pipeline:
            try:
                return self.call(pipeline, **arguments)
            except Stopped as stopped:
                return stopped.value

    def filled(self, frame: FrameType | None, given: Mapping[str, Any]) -> Values:
        """What the call, in whose loop `frame` is, has put into arguments that were left to it: tensors of texts."""
        own = self._locals(frame)
        mine = {name: own.get(name) for name in self.parameters if name not in (*OURS, *TEXTS, *given)}
        return {name: value for name, value in mine.items() if _is_tensors(value)}

    def size_in(self, frame: FrameType | None) -> Size | None:
        """At what size the call works in whose loop `frame` is; None where it has no say in it."""
        own = self._locals(frame)
        width, height = own.get("width"), own.get("height")
        return (int(width), int(height)) if width and height else None

    def _locals(self, frame: FrameType | None) -> Mapping[str, Any]:
        while frame is not None and frame.f_code is not self.call.__code__:
            frame = frame.f_back
        assert frame is not None
        return frame.f_locals

    @contextmanager
    def _replaced(self, script: Script) -> Iterator[DiffusionPipeline]:
        """A shallow copy of the pipeline with our scheduler; meanwhile its networks' calls go to the script."""
        pipeline = placed(self.pipeline, self.device)
        pipeline.scheduler = stand_in(self.pipeline.scheduler, script)
        seen = {name: module for name, module in self.networks.items() if "forward" not in vars(module)}
        vae = autoencoder(self.pipeline)
        # A module that was compiled in place calls that instead of its forward pass.
        compiled: dict[str, Any] = {}
        try:
            for name, module in seen.items():
                module.forward = _forwarding(script, name, module.forward)
                compiled[name] = vars(module).pop("_compiled_call_impl", None)
            if vae is not None:
                vae.decode = lambda code, *_, **__: script.on_decode(code)
            yield pipeline
        finally:
            for name, module in seen.items():
                vars(module).pop("forward", None)
                if compiled.get(name) is not None:
                    module._compiled_call_impl = compiled[name]
            if vae is not None:
                vars(vae).pop("decode", None)


def autoencoder(pipeline: DiffusionPipeline) -> Any:
    """The part that encodes and decodes pictures, whatever it is called; None where there is none."""
    parts = (part for part in pipeline.components.values() if isinstance(part, nn.Module))
    return next((part for part in parts if hasattr(part, "encode") and hasattr(part, "decode")), None)


def networks(pipeline: DiffusionPipeline) -> dict[str, nn.Module]:
    """The parts that could be called between the scheduler's steps: all but autoencoders, text encoders too."""
    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    return {name: part for name, part in parts.items() if not any(hasattr(part, verb) for verb in NOT_DENOISING)}


def placed(pipeline: DiffusionPipeline, device: torch.device) -> DiffusionPipeline:
    """A shallow copy that makes its latents on a device, wherever its first part happens to lie."""
    other, own = copy.copy(pipeline), type(pipeline)
    other.__class__ = type(own.__name__, (own,), {"_execution_device": device, "device": device})
    return other


def stand_in(scheduler: Any, script: Script) -> Any:
    """A copy of a scheduler, of a subclass of its class: a pipeline that asks for its kind is told the truth.

    Its `step` and `scale_model_input` change nothing, whatever the space in which the real one keeps latents.
    """

    class StandIn(type(scheduler)):  # type: ignore[misc]
        def set_timesteps(
            self,
            num_inference_steps: int | None = None,
            device: Any = None,
            timesteps: Any = None,
            sigmas: Any = None,
            mu: float | None = None,
            **others: Any,
        ) -> None:
            if script.timesteps is None:
                asked = {"device": device, "timesteps": timesteps, "sigmas": sigmas, "mu": mu, **others}
                known = inspect.signature(type(scheduler).set_timesteps).parameters
                asked = {name: value for name, value in asked.items() if value is not None and name in known}
                super().set_timesteps(num_inference_steps, **asked)
            else:
                self.timesteps = script.timesteps
                self.num_inference_steps = len(script.timesteps)
                self.sigmas = script.sigmas or noise_levels(script.timesteps, self.config["num_train_timesteps"])
            script.on_timesteps(self)

        def scale_model_input(self, sample: Tensor, *_: Any, **__: Any) -> Tensor:
            return sample

        def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor, *_: Any, **__: Any) -> Previous:
            return Previous([script.on_step(model_output, timestep, sample)] * 2)

        @property
        def init_noise_sigma(self) -> float:
            return 1.0

        @init_noise_sigma.setter
        def init_noise_sigma(self, _: float) -> None: ...

    other = copy.copy(scheduler)
    other.__class__ = StandIn
    return other


def noise_levels(timesteps: Tensor, num_timesteps: int) -> Tensor:
    """Those of a rectified flow at timesteps (S, ...), and 0 after the last."""
    return torch.cat([timesteps / num_timesteps, torch.zeros_like(timesteps[:1] / num_timesteps)])


def _forwarding(script: Script, name: str, own: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: script.on_network(NetworkCall(name, own, args, kwargs))


def _is_tensors(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, Tensor) for item in value)
    return isinstance(value, Tensor)
