"""How a pipeline lies in memory: in how many bits, on which device, and what a backward pass computes again.

Offloading is not diffusers' own, which brings a block's weights for its forward pass and takes them away after it: a
backward pass through a frozen base needs them once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from diffusers import DiffusionPipeline, ModelMixin
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional
from torch.nn.grad import conv2d_input

from cl_steps.config import Compute
from cl_steps.errors import UsageError
from cl_steps.models.quantised import is_linear, quantise
from cl_steps.models.watching import networks
from cl_steps.progress import say

BACKEND = "inductor"


def place(pipeline: DiffusionPipeline, device: torch.device, compute: Compute) -> None:
    """Freeze a pipeline and bring its parts to a device, its networks as `compute` says.

    Raises:
        UsageError: a network does not take what is asked for, or a library is not there.
    """
    parts = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    lighter = [part for part in networks(pipeline).values() if isinstance(part, ModelMixin)]
    names = " or ".join(type(part).__name__ for part in lighter)
    if compute.checkpointing and not any(part._supports_gradient_checkpointing for part in lighter):
        raise UsageError(f"no {names} can compute blocks again: set compute.checkpointing to false")
    if compute.compile and not any(part._repeated_blocks for part in lighter):
        raise UsageError(f"no {names} names blocks to compile: set compute.compile to false")
    for part in parts:
        part.requires_grad_(False).eval()
        if any(part is network for network in lighter):
            _place_network(part, device, compute)
        part.to(device)


def _place_network(network: ModelMixin, device: torch.device, compute: Compute) -> None:
    if compute.base != "full":
        quantise(network, compute.base, device)
    if compute.checkpointing and network._supports_gradient_checkpointing:
        network.enable_gradient_checkpointing()
    if compute.compile and network._repeated_blocks:
        network.compile_repeated_blocks(backend=BACKEND)
    if compute.shard and torch.distributed.is_initialized():
        shard(network, device)
    elif compute.offload and device.type == "cuda":
        offload(network, device)
    elif compute.offload:
        say("compute.offload has no say here: without a GPU the networks lie in the machine's own memory already")


def shard(network: nn.Module, device: torch.device) -> None:
    """Leave this process its share of a network's weights; a block's others come when it is computed (FSDP2).

    All processes must call the network equally often, in the same order: `Denoiser.keep_step`.
    """
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for block in _blocks(network):
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The members of a network's lists of modules: its blocks, none of which is within another."""
    for child in network.children():
        yield from child if isinstance(child, nn.ModuleList) else _blocks(child)


def offload(network: nn.Module, device: torch.device) -> None:
    """Leave the weights of the layers in a network's blocks where they are, and bring each to the device for its use.

    So no more than one layer's is there at a time, in a backward pass too. What lies outside of the blocks, biases and
    norms are not kept away.
    """
    for layer in (layer for block in _blocks(network) for layer in block.modules()):
        if is_linear(layer) or (isinstance(layer, nn.Conv2d) and _is_plain(layer)):
            Streamed(layer, device)


def weights(part: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All weights of a part by name, those that are offloaded too."""
    yield from part.named_parameters()
    for name, module in part.named_modules():
        if isinstance(module.__dict__.get("forward"), Streamed):
            yield f"{name}.weight", module.weight


def _is_plain(layer: nn.Conv2d) -> bool:
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


class Streamed:
    """A linear or convolutional layer's `forward`, whose weight comes from the CPU each time."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, device: torch.device) -> None:
        self._layer, self._device = layer, device
        weight = layer.weight.detach()
        self._weight = weight.pin_memory() if device.type == "cuda" else weight
        # No parameter any more: whatever moves the network leaves it where it is.
        del layer._parameters["weight"]
        layer.weight = self._weight
        layer.__dict__["forward"] = self

    def __call__(self, x: Tensor) -> Tensor:
        """What the layer gives: x (..., in) or (N, in, h, w)."""
        output: Tensor = _Brought.apply(x, self)  # type: ignore[no-untyped-call]
        return output

    def brought(self) -> Tensor:
        """The weight on the device."""
        return self._weight.to(self._device, non_blocking=True)

    def output(self, x: Tensor) -> Tensor:
        """W x + b."""
        layer = self._layer
        if isinstance(layer, nn.Conv2d):
            output: Tensor = layer._conv_forward(x, self.brought(), layer.bias)
        else:
            output = functional.linear(x, self.brought(), layer.bias)
        return output

    def gradient(self, shape: torch.Size, gradient: Tensor) -> Tensor:
        """Of x (shape), from that of the output."""
        layer = self._layer
        if isinstance(layer, nn.Conv2d):
            how: Any = (layer.stride, layer.padding, layer.dilation, layer.groups)
            its: Tensor = conv2d_input(shape, self.brought(), gradient, *how)  # type: ignore[no-untyped-call]
        else:
            its = gradient @ self.brought()
        return its


class _Brought(torch.autograd.Function):
    """Keeps no weight from the forward pass to the backward pass, but brings it again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, streamed: Streamed) -> Tensor:
        ctx.streamed, ctx.shape = streamed, x.shape
        return streamed.output(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        return (ctx.streamed.gradient(ctx.shape, gradient) if ctx.needs_input_grad[0] else None), None
