"""What a curriculum's stages need to know of a night: which pictures are near to the known, and which weights learn."""

from __future__ import annotations

import torch
from torch import Tensor

from cl_steps.data.images import by_size
from cl_steps.errors import UsageError
from cl_steps.learning.methods.method import STUDENT, Trainee
from cl_steps.models.adapters import Adapters


def nearest_first(trainee: Trainee, at_once: int) -> list[int]:
    """The places of the new items, those first whose loss is least before anything is learnt."""
    pool, losses = trainee.pools.new, dict[int, float]()
    for size, places in by_size(pool.sizes).items():
        denoiser, plan = trainee.denoiser.at(size), trainee.plan_of(pool, torch.tensor(places), "nearness", *size)
        # All at the same noise level, which says how well a picture is known and not how hard a level is.
        t = denoiser.schedule.at(torch.full((len(places),), 0.5, dtype=torch.float64))
        latents, texts = torch.stack([pool.latents[place] for place in places]), [pool.texts[place] for place in places]
        found = denoiser.errors(latents, torch.stack(plan.noise), t, texts, STUDENT, at_once)
        losses |= zip(places, found.tolist(), strict=True)
    return sorted(losses, key=lambda place: (losses[place], place))


def mask_of(adapters: Adapters, layers: tuple[str, ...]) -> Tensor | None:
    """Which weights learn (P,), where not all do.

    Raises:
        UsageError: none has one of the words in its name.
    """
    if not layers:
        return None
    weights = adapters.weights(STUDENT)
    rows = [torch.full((weight.numel(),), any(word in name for word in layers)) for name, weight in weights.items()]
    mask = torch.cat(rows).to(adapters.flat(STUDENT).device)
    if not bool(mask.any()):
        raise UsageError(f"no layer that learns has {' or '.join(layers)} in its name: name other layers")
    return mask
