"""Several named LoRA adapters (arXiv 2106.09685) on one frozen UNet: student, teacher, champion, anchors.

Layer by layer, with rank r and scale s = alpha / r:  W_adapter = W + s B A,  A (r, in) or (r, in, k, k), B (out, r).

The UNet itself is never changed: it is called with W_adapter in place of W (`torch.func.functional_call`). On small
networks a training step takes two thirds of the time that peft's layers take, sampling too; nothing that is active,
trainable or fused lingers in the model. The files are those of peft and diffusers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cl_steps.config import Lora
from cl_steps.errors import IntegrityError, UsageError
from cl_steps.models.lora import Adapter, read_adapter, write_adapter

MAX_MERGED = 2
"""How many frozen adapters' merged weights are kept: two models are compared at a time."""


@dataclass(frozen=True)
class Attached:
    """An adapter on the UNet: A and B of each of its layers, under peft's names."""

    lora: Lora
    weights: dict[str, nn.Parameter]

    def merged(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """W + s B A for each of its layers, under the names of the UNet's own parameters."""
        scale, merged = self.lora.alpha / self.lora.rank, {}
        for key, down in self.weights.items():
            if key.endswith(".lora_A.weight"):
                up = self.weights[key.replace(".lora_A.", ".lora_B.")]
                name = key.replace(".lora_A.", ".")
                weight = base[name]
                flat = torch.addmm(weight.flatten(1), up.flatten(1), down.flatten(1), alpha=scale)
                merged[name] = flat.view_as(weight)
        return merged


class Adapters:
    """The adapters of a UNet by name; at most one is trainable."""

    def __init__(self, unet: nn.Module) -> None:
        self._unet = unet
        self._base = dict(unet.named_parameters())
        self._attached: dict[str, Attached] = {}
        self._merged: dict[str, dict[str, Tensor]] = {}
        self._trained: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters that are there, in the order in which they came."""
        return tuple(self._attached)

    def shape(self, name: str) -> Lora:
        """Rank, alpha and layers of an adapter."""
        return self._attached[name].lora

    def weights(self, name: str) -> dict[str, nn.Parameter]:
        """The tensors of an adapter by peft's names, such as `conv_in.lora_A.weight`, sorted; changed by `put` only."""
        return self._attached[name].weights

    @torch.no_grad()
    def put(self, name: str, weights: Iterable[Tensor]) -> None:
        """Give an adapter other values, in the order of `weights`."""
        for own, other in zip(self.weights(name).values(), weights, strict=True):
            own.copy_(other)
        self._merged.pop(name, None)

    def add_fresh(self, name: str, lora: Lora, seed: int) -> None:
        """A new adapter that changes nothing yet: B = 0, A uniform in +-1/sqrt(fan in) (Kaiming, a = sqrt 5).

        Raises:
            UsageError: some target module is no linear or convolutional layer of the UNet.
        """
        random = torch.Generator().manual_seed(seed)
        weights = {key: torch.zeros(shape) for key, shape in self._shapes(lora).items()}
        for key, weight in weights.items():
            if ".lora_A." in key:
                bound = 1 / math.sqrt(weight[0].numel())
                weight.uniform_(-bound, bound, generator=random)
        self._attach(name, lora, weights)

    def load(self, name: str, path: Path) -> None:
        """An adapter from a file or its folder; it behaves exactly as when it was saved.

        Raises:
            IntegrityError: the file is not readable or its tensors do not fit the base.
        """
        adapter = read_adapter(path)
        try:
            problem = _misfit(self._shapes(adapter.lora), adapter.weights)
        except UsageError as error:
            problem = str(error)
        if problem:
            raise IntegrityError(f"the adapter in {path} does not fit the base: {problem}")
        self._attach(name, adapter.lora, adapter.weights)

    def save(self, name: str, folder: Path) -> Path:
        """Write `pytorch_lora_weights.safetensors` for diffusers' `load_lora_weights`; the same bytes each time."""
        weights = {key: value.detach().cpu() for key, value in self.weights(name).items()}
        return write_adapter(folder, Adapter(self.shape(name), weights))

    def train(self, name: str | None) -> list[nn.Parameter]:
        """Make one adapter trainable and all others frozen, until called again; None freezes all."""
        self._trained = name
        for other, attached in self._attached.items():
            for weight in attached.weights.values():
                weight.requires_grad_(other == name)
        if name is None:
            return []
        self._merged.pop(name, None)
        return list(self.weights(name).values())

    def merged(self, name: str | None) -> dict[str, Tensor]:
        """The UNet's parameters with an adapter, those that differ; with gradients if it is trained, empty for None."""
        if name is None:
            return {}
        if name == self._trained:
            return self._attached[name].merged(self._base)
        if name not in self._merged:
            while len(self._merged) >= MAX_MERGED:
                del self._merged[next(iter(self._merged))]
            with torch.no_grad():
                self._merged[name] = self._attached[name].merged(self._base)
        return self._merged[name]

    @contextmanager
    def in_place(self, name: str | None) -> Iterator[None]:
        """Within it the UNet itself computes with an adapter, for code that calls it; afterwards the base is back."""
        with torch.no_grad():
            merged = self.merged(name)
        own = {key: self._base[key].data for key in merged}
        try:
            for key, value in merged.items():
                self._base[key].data = value.detach()
            yield
        finally:
            for key, value in own.items():
                self._base[key].data = value

    def remove(self, name: str) -> None:
        """Take an adapter away."""
        del self._attached[name]
        self._merged.pop(name, None)
        self._trained = None if self._trained == name else self._trained

    def _attach(self, name: str, lora: Lora, weights: Mapping[str, Tensor]) -> None:
        device = next(iter(self._base.values())).device
        own = {key: weights[key].to(device, torch.float32, copy=True) for key in sorted(weights)}
        self._merged.pop(name, None)
        self._attached[name] = Attached(lora, {key: nn.Parameter(own[key], requires_grad=False) for key in own})

    def _shapes(self, lora: Lora) -> dict[str, tuple[int, ...]]:
        """The shapes of an adapter's tensors by peft's names."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name, layer in self._layers(lora).items():
            out, *inner = layer.weight.shape
            shapes[f"{name}.lora_A.weight"] = (lora.rank, *inner)
            shapes[f"{name}.lora_B.weight"] = (out, lora.rank, *([1] * (len(inner) - 1)))
        return shapes

    def _layers(self, lora: Lora) -> dict[str, nn.Linear | nn.Conv2d]:
        """The layers whose names end as the target modules say; each target must be the end of some."""
        layers: dict[str, nn.Linear | nn.Conv2d] = {}
        for target in lora.target_modules:
            found = {
                name: module
                for name, module in self._unet.named_modules()
                if f".{name}".endswith(f".{target}") and _can_adapt(module)
            }
            if not found:
                raise UsageError(f"no layer of the base is called {target!r:.80}: mend update.lora.target_modules")
            layers |= found
        return dict(sorted(layers.items()))


def _can_adapt(module: nn.Module) -> bool:
    """Whether W + s B A is the whole of LoRA for it."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _misfit(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor]) -> str:
    """What is wrong with the tensors found, in a few words; empty if nothing is."""
    if missing := sorted(expected.keys() - found.keys()):
        return f"{len(missing)} of its {len(expected)} tensors are missing, such as {missing[0]}"
    if unknown := sorted(found.keys() - expected.keys()):
        return f"{len(unknown)} of its tensors have no layer, such as {unknown[0]!r:.120}"
    for key, shape in expected.items():
        if tuple(found[key].shape) != shape:
            return f"{key} is {tuple(found[key].shape)} and should be {shape}"
    return ""
