"""Several named LoRA adapters (arXiv 2106.09685) on frozen networks: student, teacher, champion, anchors.

Layer by layer, with rank r and scale s = alpha / r, A (r, in) or (r, in, k, k) and B (out, r) or (out, r, 1, 1):

    y = base(x) + s B A x

`base` is the layer's own forward, whatever its weights are: in half precision, quantised, brought to the device when it
is called. The networks are never changed: only within `active` do their layers compute with an adapter, each by a
`forward` of its own instance, and afterwards these are gone.

An adapter's weights are one float32 tensor, and A and B are views of it, so that an optimizer step, an average, a norm
or a copy is one operation. Where a layer computes in half precision the whole is cast at once, and its gradient comes
back at once. `python tests/benchmarks/step.py` has what this costs beside peft's layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_steps.config import Lora
from cl_steps.errors import IntegrityError, UsageError
from cl_steps.models.full import FullChange, add, shapes_of
from cl_steps.models.lora import Adapter, Row, read_adapter, write_adapter
from cl_steps.models.targets import attention_targets, find_layers, shapes


class Adapters:
    """The adapters of some networks by name; at most one is trainable, at most one computes at a time.

    `networks` have the names of the pipeline's parts, such as `unet` or `transformer`; `device` is where the adapters
    are, without it where the first network is.
    """

    def __init__(self, networks: Mapping[str, nn.Module], device: torch.device | None = None) -> None:
        self._networks = dict(networks)
        self._device = device or next(next(iter(self._networks.values())).parameters()).device
        self._attached: dict[str, Attached | FullChange] = {}
        self._active: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters that are there, in the order in which they came."""
        return tuple(self._attached)

    def shape(self, name: str) -> Lora:
        """Rank, alpha and layers of an adapter."""
        return self._attached[name].lora

    def weights(self, name: str) -> dict[str, Tensor]:
        """The tensors of an adapter by peft's names, such as `unet.conv_in.lora_A.weight`, sorted: views, to read."""
        return self._attached[name].named()

    def flat(self, name: str) -> nn.Parameter:
        """All weights of an adapter in one row: those of `weights`, one after the other."""
        return self._attached[name].flat

    @torch.no_grad()
    def put(self, name: str, flat: Tensor) -> None:
        """Give an adapter other values, in the order of `flat`."""
        self._attached[name].flat.copy_(flat)
        self._attached[name].refresh()

    def add_fresh(self, name: str, lora: Lora, seed: int) -> None:
        """A new adapter that changes nothing yet: B = 0, A uniform in +-1/sqrt(fan in) (Kaiming, a = sqrt 5).

        Where the targets are `auto` they are the projections of the networks' attention; `shape` names them. Of rank
        `full` it is 0 for every weight.

        Raises:
            UsageError: some target module is no linear or convolutional layer of the networks.
        """
        rank = lora.rank
        if rank == "full":
            changes = {key: torch.zeros(shape) for key, shape in shapes_of(self._networks).items()}
            self._attach(name, Adapter(lora, changes))
            return
        if lora.is_auto:
            lora = lora.model_copy(update={"target_modules": attention_targets(self._networks)})
        random = torch.Generator().manual_seed(seed)
        layers = find_layers(self._networks, lora.target_modules)
        weights = {key: torch.zeros(shape) for key, shape in _all_shapes(layers, rank).items()}
        for key, weight in weights.items():
            if ".lora_A." in key:
                bound = 1 / math.sqrt(weight[0].numel())
                weight.uniform_(-bound, bound, generator=random)
        self._attach(name, Adapter(lora, weights))

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
        self._attach(name, adapter)

    def save(self, name: str, folder: Path) -> Path:
        """Write `pytorch_lora_weights.safetensors` for diffusers' `load_lora_weights`; the same bytes each time."""
        weights = {key: value.cpu() for key, value in self.weights(name).items()}
        return write_adapter(folder, Adapter(self.shape(name), weights))

    def train(self, name: str) -> nn.Parameter:
        """Make one adapter trainable and all others frozen, until called again; returns its `flat`."""
        for other, attached in self._attached.items():
            attached.flat.requires_grad_(other == name)
            attached.refresh()
        return self.flat(name)

    @contextmanager
    def active(self, name: str | None) -> Iterator[None]:
        """Within it the networks compute with an adapter, with None exactly as the base; afterwards as before.

        A backward pass that computes a part of the forward pass again (gradient checkpointing) belongs within it too,
        the step of an optimizer does not.
        """
        before = self._active
        try:
            self._switch(name)
            if name is not None and name != before and self._attached[name].flat.requires_grad:
                self._attached[name].refresh()
            yield
        finally:
            self._switch(before)

    def remove(self, name: str) -> None:
        """Take an adapter away that is not active."""
        assert name != self._active
        del self._attached[name]

    def _switch(self, name: str | None) -> None:
        if name == self._active:
            return
        attached = self._attached[name] if name is not None else None
        if self._active is not None:
            self._attached[self._active].leave()
        self._active = name
        if attached:
            attached.enter()

    def _shapes(self, lora: Lora) -> dict[str, tuple[int, ...]]:
        if lora.rank == "full":
            return shapes_of(self._networks)
        return _all_shapes(find_layers(self._networks, lora.target_modules), lora.rank)

    def _attach(self, name: str, adapter: Adapter) -> None:
        assert name != self._active
        if adapter.lora.rank == "full":
            self._attached[name] = FullChange(adapter, self._networks, self._device)
            return
        layers = find_layers(self._networks, adapter.lora.target_modules)
        self._attached[name] = Attached(adapter, layers, adapter.lora.rank, self._device)


@torch.no_grad()
def fold(adapter: Adapter, networks: Mapping[str, nn.Module]) -> None:
    """Put an adapter into the weights of its layers for good: W + s B A, or W + D."""
    if adapter.lora.rank == "full":
        add(adapter, networks)
        return
    scale = adapter.lora.alpha / adapter.lora.rank
    for name, layer in find_layers(networks, adapter.lora.target_modules).items():
        down, up = (adapter.weights[f"{name}.{side}.weight"] for side in ("lora_A", "lora_B"))
        weight: Tensor = layer.weight  # type: ignore[assignment]
        change = scale * (up.flatten(1).float() @ down.flatten(1).float())
        weight.copy_((weight.float() + change.view_as(weight).to(weight.device)).to(weight.dtype))


class Attached(Row):
    """An adapter on its layers: its weights, and a branch for each layer."""

    def __init__(self, adapter: Adapter, layers: Mapping[str, nn.Module], rank: int, device: torch.device) -> None:
        super().__init__(adapter, device)
        self._branches = [Branch(self, name, layer, rank) for name, layer in layers.items()]
        self._cast: dict[torch.dtype, dict[str, Tensor]] = {}
        self.refresh()

    def enter(self) -> None:
        """Make the layers compute with it."""
        for branch in self._branches:
            branch.enter()

    def leave(self) -> None:
        """Make the layers compute as before."""
        for branch in self._branches:
            branch.leave()

    def refresh(self) -> None:
        """Take the weights as they are now, each branch in the precision that it last computed in."""
        self._cast = {}
        for branch in self._branches:
            branch.take(branch.dtype)

    def tensors(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The weights by name in a precision, cast once for all layers."""
        if dtype not in self._cast:
            with torch.enable_grad():
                self._cast[dtype] = self.views(self.flat.to(dtype))
        return self._cast[dtype]


class Branch:
    """What an adapter does beside one layer; while it is entered the layer's class is one that asks it."""

    def __init__(self, attached: Attached, name: str, layer: nn.Module, rank: int) -> None:
        self._attached, self._layer, self._kind = attached, layer, type(layer)
        self._down_key, self._up_key = shapes(name, layer, rank)
        self._scale, self._is_conv = attached.lora.alpha / rank, isinstance(layer, nn.Conv2d)
        self.own: Callable[[Tensor], Tensor] | None = None
        self.dtype = torch.float32

    def enter(self) -> None:
        """Stand beside the layer's forward, be it the class's or one that was put there (as offloading does)."""
        self.own = self._layer.__dict__.pop("forward", None)
        self._layer.__dict__["branch"] = self
        self._layer.__class__ = _beside(self._kind)

    def leave(self) -> None:
        """Give the layer back what it had; where it never was entered, nothing happens."""
        if self._layer.__dict__.get("branch") is self:
            del self._layer.__dict__["branch"]
            self._layer.__class__ = self._kind
            if self.own is not None:
                self._layer.__dict__["forward"] = self.own

    def take(self, dtype: torch.dtype) -> None:
        """Have A and B at hand in a precision: that which the layer gave when it was last called."""
        weights = self._attached.tensors(dtype)
        self.dtype, self._down, self._up = dtype, weights[self._down_key], weights[self._up_key]

    def added(self, layer: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """y + s B A x for the layer, which gave y for x (..., in) or (N, in, h, w)."""
        if y.dtype != self.dtype:
            self.take(y.dtype)
        x = x.to(y.dtype)
        if self._is_conv:
            inner = layer._conv_forward(x, self._down, None)  # type: ignore[operator]
            return torch.add(y, functional.conv2d(inner, self._up), alpha=self._scale)
        rows = x.reshape(-1, x.shape[-1]) @ self._down.t()
        return torch.addmm(y.reshape(-1, y.shape[-1]), rows, self._up.t(), alpha=self._scale).view(y.shape)


class Beside(nn.Module):
    """A layer with a branch. All that is its branch's own it reads there, so that layers of a kind compile once."""

    branch: Branch

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives with the adapter."""
        branch = self.branch
        y: Tensor = super().forward(x) if branch.own is None else branch.own(x)
        return branch.added(self, x, y)


BESIDE: dict[type, type[nn.Module]] = {}
"""By a layer's class, that of such a layer with a branch: one for all of them."""


def _beside(kind: type[nn.Module]) -> type[nn.Module]:
    if kind not in BESIDE:
        BESIDE[kind] = type(kind.__name__, (Beside, kind), {})
    return BESIDE[kind]


def _all_shapes(layers: Mapping[str, nn.Module], rank: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for name, layer in layers.items():
        found |= shapes(name, layer, rank)
    return found


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
