"""Full fine-tuning as an adapter, for small networks: a change of every weight.

    y = network(x; W + D),     D = 0 at first

The base stays frozen, and D (as many numbers as W) is what learns, is averaged, compared, stored and promoted, so that
student, teacher, champion and anchors are on one copy of the base as LoRA's are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cl_steps.models.lora import Adapter, Row

CHANGE = ".change"


class FullChange(Row):
    """A change on its networks: while it is entered, their weights are others."""

    def __init__(self, adapter: Adapter, networks: Mapping[str, nn.Module], device: torch.device) -> None:
        super().__init__(adapter, device)
        self._places = {f"{name}{CHANGE}": (module, own) for name, module, own in weights_of(networks)}
        self._own: dict[str, Any] = {}

    def enter(self) -> None:
        """Put W + D in the place of each W."""
        self._own = {key: module._parameters[name] for key, (module, name) in self._places.items()}
        self.refresh()

    def leave(self) -> None:
        """Give the networks their weights back."""
        for key, own in self._own.items():
            module, name = self._places[key]
            module._parameters[name] = own
        self._own = {}

    def refresh(self) -> None:
        """Take the change as it is now."""
        if not self._own:
            return
        with torch.enable_grad():
            for key, change in self.views(self.flat).items():
                (module, name), own = self._places[key], self._own[key]
                # Not as an attribute, which has to be a parameter and so a leaf without a gradient for D.
                module._parameters[name] = (own.float() + change).to(own.dtype)


def weights_of(networks: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module, str]]:
    """Each weight's name, such as `unet.conv_in.weight`, the module that has it, and what it is called there."""
    for part, network in networks.items():
        for prefix, module in network.named_modules():
            for name, weight in module.named_parameters(recurse=False):
                if weight.is_floating_point():
                    yield ".".join(filter(None, (part, prefix, name))), module, name


def shapes_of(networks: Mapping[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """The shapes of a change by name."""
    return {f"{name}{CHANGE}": tuple(getattr(module, own).shape) for name, module, own in weights_of(networks)}


@torch.no_grad()
def add(adapter: Adapter, networks: Mapping[str, nn.Module]) -> None:
    """Put a change into the weights for good."""
    for name, module, own in weights_of(networks):
        weight: Tensor = getattr(module, own)
        weight.copy_((weight.float() + adapter.weights[f"{name}{CHANGE}"].to(weight.device)).to(weight.dtype))
