"""The prediction of a pipeline's networks for noisy latents, by the direct call wherever there is one.

Rows whose conditions have other shapes are called apart, so that no row's prediction depends on how others are padded.
For each new shape the pipeline's own call is watched once, recorded, and the record is kept only if it gives the same,
bit for bit; where it does not, or cannot be, the pipeline's own call is watched each time.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from cl_steps.models.captions import Conditions, alike, joined, shapes
from cl_steps.models.direct import SIGMAS, Asked, DirectCall, record
from cl_steps.models.family import Family
from cl_steps.models.watching import Values

TOLERANCE = 1e-2
"""How near a row alone must be to the same row beside others, relative to the largest; half precision included."""
ONE_AT_A_TIME = threading.RLock()
"""While a call is recorded, `torch.fx` sees every module that is called in this process, in whatever thread."""
MAX_SHAPES = 256
"""How many shapes' records are kept; the oldest goes."""


@dataclass
class Way:
    """How a shape is called: directly, or watched, together or row by row; `blank` as in `Asked`."""

    blank: list[Any] = field(default_factory=list)
    direct: DirectCall | None = None
    by_row: bool = False
    sigmas: tuple[float, ...] | None = None


@dataclass
class Predictor:
    """Predicts with whatever the family's networks are at the moment: adapters are not its business.

    `one_by_one` says that each row is called alone, whatever the shapes of the others.
    """

    family: Family
    ways: dict[Any, Way] = field(default_factory=dict)
    one_by_one: bool = False

    def __call__(self, latents: Tensor, t: Tensor, conditions: Sequence[Conditions]) -> Tensor:
        """The output (N, ...) for latents (N, ...) at t (N,), as the scheduler's step is given it, in float32."""
        with ONE_AT_A_TIME:
            return self._predicted(latents, t, conditions)

    def _predicted(self, latents: Tensor, t: Tensor, conditions: Sequence[Conditions]) -> Tensor:
        groups = [[row] for row in range(len(conditions))] if self.one_by_one else alike(conditions)
        if len(groups) == 1:
            return self._alike(latents, t, conditions).float()
        parts = [self._alike(latents[rows], t[rows], [conditions[row] for row in rows]) for rows in groups]
        order = torch.tensor([row for rows in groups for row in rows])
        return torch.cat(parts)[order.argsort().to(latents.device)].float()

    def _alike(self, latents: Tensor, t: Tensor, conditions: Sequence[Conditions]) -> Tensor:
        """Rows whose conditions have equal shapes."""
        key = (latents.shape, latents.dtype, shapes(conditions[0]))
        if key not in self.ways:
            while len(self.ways) >= MAX_SHAPES:
                del self.ways[next(iter(self.ways))]
            self.ways[key] = self._explore(latents, t, conditions)
        way = self.ways[key]
        if way.by_row and len(latents) > 1:
            rows = [slice(row, row + 1) for row in range(len(latents))]
            return torch.cat([self._alike(latents[row], t[row], conditions[row]) for row in rows])
        given = joined(conditions, latents.device, self.family.rows)
        if way.direct:
            module = self.family.watcher.networks[way.direct.network]
            return way.direct(module, latents, t, pytree.tree_leaves(given))
        return self._watched(latents, t[0] if way.by_row else t, given, way)

    @torch.no_grad()
    def _explore(self, latents: Tensor, t: Tensor, conditions: Sequence[Conditions]) -> Way:
        if self.family.by_row:
            return Way(by_row=True)
        given = joined(conditions, latents.device, self.family.rows)
        alone = self._watched(latents[-1:], t[-1:], joined(conditions[-1:], latents.device, self.family.rows), Way())
        for sigmas in (None, SIGMAS):
            way = Way(sigmas=sigmas)
            try:
                together = self._watched(latents, t, given, way)
            except (RuntimeError, TypeError, ValueError):
                continue
            # Where a row's timestep was not its own, it gives something else beside others than alone.
            atol = TOLERANCE * float(alone.abs().nan_to_num().max())
            if torch.allclose(together[-1:], alone, rtol=TOLERANCE, atol=atol, equal_nan=True):
                way.direct = self._recorded(latents, t, given, way, together)
                return way
        return Way(by_row=True)

    def _recorded(self, latents: Tensor, t: Tensor, given: Values, way: Way, expected: Tensor) -> DirectCall | None:
        """A direct call that gives what is expected, if there is one."""
        if not all(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(given)):
            # A record of how a text is encoded would be of that text.
            return None
        # Recorded elsewhere than compared: what a record took for a constant shows.
        other = pytree.tree_map(lambda leaf: leaf / 2 if leaf.is_floating_point() else leaf, given)
        for sigmas in (SIGMAS, None):
            direct = record(self.family.watcher, self.family.size, latents / 2, 1 + t // 2, other, way.blank, sigmas)
            if direct:
                module = self.family.watcher.networks[direct.network]
                if torch.equal(direct(module, latents, t, pytree.tree_leaves(given)), expected):
                    return direct
        return None

    def _watched(self, latents: Tensor, t: Tensor, given: Values, way: Way) -> Tensor:
        """By the pipeline's own call; leaves in `way` what the network gives, as zeros."""
        script = Asked(latents, torch.stack([t, t]), way.blank)
        script.sigmas = way.sigmas
        output: Tensor = self.family.watcher.watch(script, self.family.size, given)
        return output
