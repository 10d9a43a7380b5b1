"""The network's call without the pipeline around it.

`torch.fx` records what the pipeline does with latents, timesteps and conditions on their way to the network, and with
the network's output on its way to the scheduler; a training step then plays the two records back and calls the network
between them. A record holds for its shapes alone. Where a pipeline looks at values (`if t > ...`, `.item()`), it cannot
be recorded, and its own call is watched each time instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from cl_steps.models.watching import NetworkCall, Script, Size, Stopped, Watcher

CANNOT_RECORD = (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, NotImplementedError)
SIGMAS = (0.5, 0.5, 0.0)
"""What a pipeline is shown that only looks at noise levels, and does not compute with them."""


@dataclass
class Asked(Script):
    """Sets our latents and timesteps before the network; stops with the prediction as the scheduler is given it.

    The loop has two steps: the first one's network is not called, and its step gives our latents; so they need not be
    in the form which the call takes, but in the form that the loop has. `blank` is what the network gives at the first
    step, call by call; where it is empty, the network is asked once what that looks like.
    """

    latents: Tensor
    timesteps: Tensor
    blank: list[Any]

    def __post_init__(self) -> None:
        self.steps = self.calls = 0
        self.asked: NetworkCall | None = None

    def on_network(self, call: NetworkCall) -> Any:
        """See `Script`."""
        if not self.steps:
            self.calls += 1
            if self.calls > len(self.blank):
                with torch.no_grad():
                    self.blank.append(pytree.tree_map(_zeros, call.run()))
            return self.blank[self.calls - 1]
        return self.answer(call)

    def answer(self, call: NetworkCall) -> Any:
        """The network's own, at the second step."""
        return call.run()

    def on_step(self, output: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """See `Script`."""
        del t
        if self.steps:
            raise Stopped(output)
        self.steps += 1
        return self.latents.to(sample.dtype)


@dataclass
class Recorded(Asked):
    """The same, but at the second step the network is not called either: its arguments are kept, its output given."""

    output: Any = None

    def answer(self, call: NetworkCall) -> Any:
        """See `Asked`."""
        assert self.asked is None, "the network is called more than once a step"
        self.asked = call
        return self.output


@dataclass(frozen=True)
class DirectCall:
    """What the pipeline does before the network and after it, for one shape of everything."""

    network: str
    before: fx.GraphModule
    arguments: Any
    after: fx.GraphModule

    def __call__(self, module: nn.Module, latents: Tensor, t: Tensor, given: Sequence[Tensor]) -> Tensor:
        """The prediction (N, ...) for latents (N, ...) at t (N,)."""
        args, kwargs = pytree.tree_unflatten(self.before(latents, t, *given), self.arguments)
        output = tensors(module(*args, **kwargs))
        prediction: Tensor = self.after(latents, t, *given, *output)
        return prediction


def tensors(output: Any) -> list[Tensor]:
    """The tensors of a network's output, in their order."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def record(
    watcher: Watcher,
    size: Size,
    latents: Tensor,
    t: Tensor,
    given: Mapping[str, Any],
    blank: list[Any],
    sigmas: tuple[float, ...] | None = None,
) -> DirectCall | None:
    """A direct call for these shapes; `blank` as in `Asked`. None where it cannot be recorded."""
    leaves, spec = pytree.tree_flatten(dict(given))
    if len(blank) != 1:
        return None
    own, like = pytree.tree_flatten(blank[0])
    places = [place for place, leaf in enumerate(own) if isinstance(leaf, Tensor)]
    found: dict[str, Any] = {}

    def run(latents: Tensor, t: Tensor, *values: Tensor) -> Any:
        filled = list(own)
        for place, value in zip(places, values[len(leaves) :], strict=True):
            filled[place] = value
        script = Recorded(latents, torch.stack([t, t]), blank, pytree.tree_unflatten(filled, like))
        script.sigmas = sigmas
        prediction = watcher.watch(script, size, pytree.tree_unflatten(list(values[: len(leaves)]), spec))
        assert script.asked is not None
        flat, found["arguments"] = pytree.tree_flatten((script.asked.args, script.asked.kwargs))
        found["network"] = script.asked.name
        return flat, prediction

    try:
        graph = make_fx(run)(latents, t, *leaves, *(own[place] for place in places))
    except CANNOT_RECORD:
        return None
    [node] = [node for node in graph.graph.nodes if node.op == "output"]
    flat, prediction = node.args[0]
    before, after = _part(graph, flat, len(leaves) + 2), _part(graph, prediction)
    return DirectCall(found["network"], before, found["arguments"], after)


def _part(graph: fx.GraphModule, output: Any, inputs: int | None = None) -> fx.GraphModule:
    """What of a record leads to `output`, as a function of its first `inputs` inputs."""
    part = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    part.graph_copy(graph.graph, val_map=copied)
    part.output(fx.map_arg(output, copied.__getitem__))
    part.eliminate_dead_code()
    for node in [node for node in part.nodes if node.op == "placeholder"][inputs:] if inputs else []:
        part.erase_node(node)
    return fx.GraphModule(graph, part)


def _zeros(leaf: Any) -> Any:
    return torch.zeros_like(leaf) if isinstance(leaf, Tensor) else leaf
