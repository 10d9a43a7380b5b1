"""A base whose linear layers hold their weights in fewer bits and compute in the precision that it has (torchao).

    int8   8 bits, a scale a row; a prediction changes by about a hundredth
    fp8    8 bits of floating point (e4m3), a scale a row
    nf4    4 bits, a scale for each 64 weights (QLoRA, arXiv 2305.14314, section 3)

Gradients go through such a layer to what is before it, so adapters learn beside it as beside any. Nothing of it is
kept: a line's base is as it came, and how it is held is a matter of where a step runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from cl_steps.config import Bits
from cl_steps.errors import UsageError

BLOCK = 64
"""Weights of nf4 that share a scale; scales are themselves held in 8 bits, up to `SCALES` of them together."""
SCALES = 256


def quantise(network: nn.Module, bits: Bits, device: torch.device) -> None:
    """Bring a network's linear layers to a device one after the other, each held in fewer bits there.

    A layer stays as it is whose size no block divides, or whose weights are all alike.

    Raises:
        UsageError: torchao is not there.
    """
    hold = _holding(bits)
    for layer in network.modules():
        if is_linear(layer):
            hold(layer.to(device))


def is_linear(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether it is a linear layer that is called: torch's own attention takes the weight of its output's instead."""
    return isinstance(layer, nn.Linear) and not isinstance(layer, NonDynamicallyQuantizableLinear)


def stored(weight: Tensor) -> list[Tensor]:
    """What a weight is held as: itself, or numbers of fewer bits and their scales."""
    if not is_traceable_wrapper_subclass(weight):
        return [weight]
    names, _ = weight.__tensor_flatten__()
    parts = (getattr(weight, name) for name in names)
    return [inner for part in parts if isinstance(part, Tensor) for inner in stored(part)]


def is_finite(weight: Tensor) -> bool:
    """Whether a weight is all numbers; those of 8 bits have no infinity, and their scales show what they came from."""
    return all(own.itemsize == 1 or bool(own.isfinite().all()) for own in stored(weight))


def _holding(bits: Bits) -> Callable[[nn.Module], None]:
    try:
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_, to_nf4
    except ImportError as error:
        raise UsageError(
            f"compute.base: {bits} needs torchao: pip install 'retain[quantised]', or set it to full"
        ) from error

    def in_blocks(layer: nn.Module) -> None:
        weight: Tensor = layer.weight  # type: ignore[assignment]
        if weight.numel() % BLOCK == 0:
            held = to_nf4(weight.detach(), BLOCK, math.gcd(weight.numel() // BLOCK, SCALES))
            # Scales that are all the same, as those of zeros, cannot be held in 8 bits.
            if is_finite(held):
                layer.weight = nn.Parameter(held, requires_grad=False)

    return {
        "int8": lambda layer: quantize_(layer, Int8WeightOnlyConfig()),
        "fp8": lambda layer: quantize_(layer, Float8WeightOnlyConfig()),
        "nf4": in_blocks,
    }[bits]
