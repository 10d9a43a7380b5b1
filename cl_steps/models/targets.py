"""Which layers of a network an adapter sits on: linear ones, quantised or not, and convolutions of one group.

They are named by the ends of their names, as peft's `target_modules` are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from cl_steps.errors import UsageError

QUERIES = re.compile(r"(^|_)(w?q|qkv|query)(_|$)")
OF_ATTENTION = re.compile(r"(^|_)(w?[qkvo]|qkv|kv|query|key|value|attn)(_|$)")
ATTENTION = re.compile(r"Att(ention|n)(?!.*Block)")
POOL = re.compile(r"Pool")


def adaptable(network: nn.Module) -> dict[str, nn.Module]:
    """The layers of a network that can have an adapter, by their names in it."""
    return {name: module for name, module in network.named_modules() if _can_adapt(module)}


def find_layers(networks: Mapping[str, nn.Module], targets: Collection[str]) -> dict[str, nn.Module]:
    """The layers whose names end as `targets` say, sorted, as `<network>.<name of the layer>`.

    Raises:
        UsageError: a target is the end of no layer's name.
    """
    there = {
        f"{part}.{name}": layer for part, network in networks.items() for name, layer in adaptable(network).items()
    }
    found: set[str] = set()
    for target in targets:
        matching = {name for name in there if name.endswith(f".{target}")}
        if not matching:
            raise UsageError(f"no layer of the base is called {target!r:.80}: mend update.lora.target_modules")
        found |= matching
    return {name: there[name] for name in sorted(found)}


def shapes(name: str, layer: nn.Module, rank: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a layer's A and B by peft's names: (r, in) and (out, r), or (r, in, k, k) and (out, r, 1, 1)."""
    if isinstance(layer, nn.Conv2d):
        down = (rank, layer.in_channels, *layer.kernel_size)
        up: tuple[int, ...] = (layer.out_channels, rank, 1, 1)
    else:
        down, up = (rank, _size(layer, "in_features")), (_size(layer, "out_features"), rank)
    return {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}


def _size(layer: nn.Module, name: str) -> int:
    return int(getattr(layer, name))


def _can_adapt(module: nn.Module) -> bool:
    """Whether y + s B A x is the whole of LoRA for it, and whether it is called at all (attention of torch's own is
    not: it takes the weight of its output's layer).
    """
    if isinstance(module, nn.Conv2d):
        return module.groups == 1
    if isinstance(module, NonDynamicallyQuantizableLinear):
        return False
    return all(isinstance(getattr(module, name, None), int) for name in ("in_features", "out_features"))


def attention_targets(networks: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """The targets that are the attention projections of some networks, whatever their family: `auto`.

    Attention is what has a layer for queries. Where its class is one of attention its layers are the projections;
    where it is a block that holds more, those of its own layers that are named as attention's are. What pools a text
    is none.

    Raises:
        UsageError: there is no attention.
    """
    found = [
        f"{part}.{'.'.join(filter(None, (name, inner)))}"
        for part, network in networks.items()
        for name, module in network.named_modules()
        for inner in _projections(module)
    ]
    if not found:
        raise UsageError(f"no attention is found in {' or '.join(networks)}: name layers in update.lora.target_modules")
    return endings(found, [f"{part}.{name}" for part, network in networks.items() for name in adaptable(network)])


def endings(chosen: Collection[str], there: Collection[str]) -> tuple[str, ...]:
    """The shortest ends of names that are those of the chosen layers and of no others that are there, sorted."""
    others = set(there) - set(chosen)
    return tuple(sorted({_ending(name.split("."), others) for name in chosen}))


def _ending(words: list[str], others: Collection[str]) -> str:
    """The last words of a name that end no other name; a number alone says nothing and never is the first."""
    for count in range(1, len(words)):
        ending = ".".join(words[-count:])
        if not words[-count].isdigit() and not any(f".{other}".endswith(f".{ending}") for other in others):
            return ending
    return ".".join(words[1:])


def _projections(module: nn.Module) -> list[str]:
    """The names, within a module, of its attention projections; empty where it is no attention itself."""
    own = [name for name, child in module.named_children() if _can_adapt(child)]
    if POOL.search(type(module).__name__) or not any(QUERIES.search(name) for name in own):
        return []
    if ATTENTION.search(type(module).__name__):
        return list(adaptable(module))
    return [name for name in own if OF_ATTENTION.search(name)]
