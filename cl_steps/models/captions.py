"""What a caption becomes on its way to the network: the arguments that the pipeline's own call fills in for it.

A call that is given a prompt encodes it and puts the outcome into those of its arguments which a user may also give
himself (`prompt_embeds`, `pooled_prompt_embeds`, masks, ...). Stopped at the network, it shows them. So each caption is
encoded once, alone, by the pipeline's own code, and kept on the CPU; rows whose conditions have equal shapes are put
together again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from cl_steps.errors import UsageError
from cl_steps.models.watching import Script, Stopped, Values, Watcher

Conditions = Mapping[str, Any]
"""Arguments of the pipeline's call for one caption: tensors (1, ...), or lists of one tensor."""
NEGATIVE = "negative_"


@dataclass
class Filled(Script):
    """Stops before the first network, with what the call has filled in by itself."""

    watcher: Watcher
    given: Mapping[str, Any]
    timesteps: Tensor = field(default_factory=lambda: torch.tensor([500, 500]))

    def on_network(self, name: str, own: Any, args: tuple[Any, ...], kwargs: Values) -> Any:
        raise Stopped(self.watcher.filled(sys._getframe(), self.given))


@dataclass(frozen=True)
class Captions:
    """Encodes captions for one size of picture, each once.

    Attributes:
        watcher: with guidance off.
        kept: by caption, on the CPU.
    """

    watcher: Watcher
    size: tuple[int, int]
    kept: dict[str, Conditions] = field(default_factory=dict)

    @torch.no_grad()
    def conditions(self, text: str) -> Conditions:
        """Those of a caption.

        Raises:
            UsageError: the pipeline's call takes no encoded captions.
        """
        if text not in self.kept:
            filled = self._filled(self.watcher, {"prompt": [text]})
            own = {name: value for name, value in filled.items() if not name.startswith(NEGATIVE)}
            if not own:
                raise UsageError("its call keeps what it makes of a caption to itself, so that captions cannot be kept")
            self.kept[text] = {name: _on_cpu(value) for name, value in own.items()}
        return self.kept[text]

    @torch.no_grad()
    def against(self, negative: str, settings: Values) -> Conditions:
        """What guidance compares a caption with at these settings of the call; empty where it does not."""
        served = replace(self.watcher, settings=settings)
        texts = {"prompt": [""], "negative_prompt": [negative]} if negative else {"prompt": [""]}
        filled = self._filled(served, texts)
        return {name: _on_cpu(value) for name, value in filled.items() if name.startswith(NEGATIVE)}

    def _filled(self, watcher: Watcher, given: Values) -> Values:
        filled: Values = watcher.watch(Filled(watcher, given), self.size, given)
        return filled


def joined(rows: Sequence[Conditions], device: torch.device) -> Values:
    """Conditions of equal shapes as those of a batch, on the device."""
    together: Values = {}
    for name, first in rows[0].items():
        if isinstance(first, list):
            together[name] = [item.to(device, non_blocking=True) for row in rows for item in row[name]]
        else:
            together[name] = torch.cat([row[name] for row in rows]).to(device, non_blocking=True)
    return together


def shapes(conditions: Conditions) -> tuple[Any, ...]:
    """What rows must have in common to be put together."""
    return tuple(
        (name, tuple(tuple(item.shape) for item in value) if isinstance(value, list) else tuple(value.shape))
        for name, value in sorted(conditions.items())
    )


def _on_cpu(value: Any) -> Any:
    return [item.cpu() for item in value] if isinstance(value, list) else value.cpu()
