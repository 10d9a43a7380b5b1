"""What a caption becomes on its way to the network: the arguments that the pipeline's own call fills in for it.

A call that is given a prompt encodes it and puts the outcome into those of its arguments which a user may also give
himself (`prompt_embeds`, `pooled_prompt_embeds`, masks, ...). Stopped at the network, it shows them. So each caption is
encoded once, alone, by the pipeline's own code, and kept; rows whose conditions have equal shapes are put together
again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from cl_steps import digests
from cl_steps.models.direct import tensors
from cl_steps.models.packs import Packs, Parts
from cl_steps.models.readers import num_cut, readers_among
from cl_steps.models.watching import NetworkCall, Script, Size, Stopped, Values, Watcher

Conditions = Mapping[str, Any]
"""Arguments of the pipeline's call for one caption: tensors, lists of one tensor, or of the text itself."""
NEGATIVE = "negative_"


@dataclass
class Filled(Script):
    """Stops before the first network, with what the call has filled in by itself."""

    watcher: Watcher
    given: Mapping[str, Any]
    timesteps: Tensor = field(default_factory=lambda: torch.tensor([500, 500]))

    def on_network(self, call: NetworkCall) -> Any:
        """See `Script`."""
        del call
        raise Stopped(self.watcher.filled(sys._getframe(), self.given))


@dataclass
class FirstCall(Script):
    """Stops at the first network, with the tensors that it is given."""

    timesteps: Tensor = field(default_factory=lambda: torch.tensor([500, 500]))

    def on_network(self, call: NetworkCall) -> Any:
        """See `Script`."""
        raise Stopped(tensors((call.args, call.kwargs)))


@dataclass
class Captions:
    """Encodes captions for one size of picture, each once.

    Attributes:
        watcher: with guidance off.
        kept: by the caption's SHA-256: in memory, or in packs on the disk.
        are_encoded: whether the call takes encoded captions; where it does not, a caption stays its text, and the
            pipeline encodes it at every call.
    """

    watcher: Watcher
    size: Size
    kept: dict[str, Parts] | Packs = field(default_factory=dict)
    are_encoded: bool | None = None

    def conditions(self, text: str) -> Conditions:
        """Those of a caption, on the CPU, its arguments sorted by name."""
        name = self.keep(text)
        return whole(self.kept[name]) if name else {"prompt": [text]}

    @torch.no_grad()
    def keep(self, text: str) -> str:
        """Encode a caption, unless that was done before; what it is kept as, empty where it cannot be encoded."""
        name, spoken = caption_name(text), {"prompt": [text]}
        if name in self.kept:
            return name
        if self.are_encoded is False:
            return ""
        own = encoded(self.watcher, self.size, spoken)
        if self.are_encoded is None:
            self.are_encoded = bool(own) and self._takes(own, spoken)
        if not self.are_encoded:
            return ""
        self.kept[name] = parts_of(own)
        return name

    @torch.no_grad()
    def against(self, negative: str, settings: Values) -> Conditions:
        """What guidance compares a caption with at these settings of the call; empty where it does not."""
        texts: Values = {"prompt": [""], "negative_prompt": [negative]} if negative else {"prompt": [""]}
        served = replace(self.watcher, settings=settings)
        filled = served.watch(Filled(served, texts), self.size, texts)
        return {name: _on_cpu(value) for name, value in filled.items() if name.startswith(NEGATIVE)}

    def cut(self, texts: Collection[str]) -> int:
        """How many captions are longer than any of the pipeline's text encoders reads: their ends have no say."""
        return num_cut(texts, readers_among(self.watcher.pipeline.components.values(), self.watcher.call))

    def _takes(self, own: Conditions, spoken: Values) -> bool:
        """Whether an encoded caption, given back, is to the network what the caption itself is."""
        try:
            given = self.watcher.watch(FirstCall(), self.size, _moved(own, self.watcher.device))
        except Exception:  # a pipeline may refuse it in any way
            return False
        expected = self.watcher.watch(FirstCall(), self.size, spoken)
        return len(given) == len(expected) and all(map(torch.equal, given, expected))


@torch.no_grad()
def encoded(watcher: Watcher, size: Size | None, spoken: Values) -> Values:
    """What a call makes of the captions that it is given, on the CPU; empty where it keeps that to itself."""
    filled = watcher.watch(Filled(watcher, spoken), size, spoken)
    return {name: _on_cpu(value) for name, value in filled.items() if not name.startswith(NEGATIVE)}


def caption_name(text: str) -> str:
    """What a caption's conditions are kept as."""
    return digests.sha256(text.encode())


def parts_of(conditions: Conditions) -> Parts:
    """Conditions as tensors by name; those of a list are called `<argument>/<place>`."""
    named = ((name, value if isinstance(value, list) else [value]) for name, value in conditions.items())
    return {
        f"{name}/{place}" if isinstance(conditions[name], list) else name: tensor
        for name, rows in named
        for place, tensor in enumerate(rows)
    }


def whole(parts: Parts) -> Values:
    """Conditions of which `parts_of` made tensors, sorted by name."""
    found: Values = {}
    for name in sorted(parts, key=lambda name: (name.partition("/")[0], int(name.partition("/")[2] or 0))):
        argument, slash, _ = name.partition("/")
        if slash:
            found.setdefault(argument, []).append(parts[name])
        else:
            found[argument] = parts[name]
    return found


def row_places(one: Conditions, two: Conditions) -> Mapping[str, int] | None:
    """Which dimension of each argument has the rows, from what one caption and two become.

    None where two captions are not one beside the other.
    """
    places: dict[str, int] = {}
    for name, value in one.items():
        if isinstance(value, Tensor):
            pair = zip(value.shape, two[name].shape, strict=True)
            grown = [place for place, (single, double) in enumerate(pair) if single != double]
            if len(grown) != 1 or two[name].shape[grown[0]] != 2 * value.shape[grown[0]]:
                return None
            places[name] = grown[0]
        elif len(two[name]) != 2 * len(value):
            return None
    return places


def joined(rows: Sequence[Conditions], device: torch.device, places: Mapping[str, int]) -> Values:
    """Conditions of equal shapes as those of a batch, on the device; `places` as of `row_places`."""
    if len(rows) == 1:
        return _moved(rows[0], device)
    together: Values = {}
    for name, first in rows[0].items():
        if isinstance(first, Tensor):
            together[name] = torch.cat([row[name] for row in rows], dim=places.get(name, 0))
        else:
            together[name] = [item for row in rows for item in row[name]]
    return _moved(together, device)


def alike(rows: Sequence[Conditions]) -> list[list[int]]:
    """The places of rows that can be put together, group by group."""
    groups: dict[Any, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(shapes(row), []).append(place)
    return list(groups.values())


def shapes(conditions: Conditions) -> tuple[Any, ...]:
    """What rows must have in common to be put together."""
    return tuple((name, _shape(value)) for name, value in sorted(conditions.items()))


def _shape(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_shape(item) for item in value)
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _moved(values: Conditions, device: torch.device) -> Values:
    return {name: _each(value, lambda item: item.to(device, non_blocking=True)) for name, value in values.items()}


def _on_cpu(value: Any) -> Any:
    return _each(value, Tensor.cpu)


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A tensor, or the tensors of a list, changed; texts stay."""
    if isinstance(value, list):
        return [_each(item, change) for item in value]
    return change(value) if isinstance(value, Tensor) else value
