"""A tiny learner: a student and a teacher that start equal, new and replayed items of random latents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from cl_steps.config import METHOD_NAMES, PRESETS, Compute, Lora, Update, methods_of
from cl_steps.learning.learner import Learner
from cl_steps.learning.methods.catalogue import Kept, Methods
from cl_steps.learning.methods.method import STUDENT, TEACHER
from cl_steps.learning.pools import Pool, Pools
from cl_steps.learning.processes import ALONE, Processes
from cl_steps.models.model import Denoiser, open_denoiser
from tests.tiny import TARGET_MODULES, make_tiny_pipeline

LORA = Lora(rank=2, alpha=4, target_modules=TARGET_MODULES)
UPDATE = Update(
    steps=12, batch_size=6, learning_rate=5e-2, base_learning_rate=1e-1, checkpoint_every=4, ema_decay=0.9, lora=LORA
)
KNOBS: dict[str, dict[str, Any]] = {
    "ewc": {"draws": 6, "weight": 10.0},
    "gem": {"rows": 3},
    "agem": {"rows": 3},
    "curriculum": {"stages": ({"until": 0.5, "band": (0.5, 1.0), "nearest": 0.5, "new": 0.7}, {"until": 1.0})},
}
"""Those with which a method is tried; one that is not named has its own."""
EVERY = (*METHOD_NAMES, *sorted(PRESETS.keys() - set(METHOD_NAMES)), ("replay", "ewc", "agem", "curriculum"))
"""Every method, the usual sets, and one of every kind together."""
MakeLearner = Callable[..., Learner]
Precision = Literal["float32", "bfloat16", "float16"]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "base", "v_prediction")


@pytest.fixture
def denoiser(base: Path) -> Denoiser:
    return open_denoiser(base, Compute(device="cpu", threads=1))


def pool(seed: int, count: int, slices: tuple[str, ...] = ("a", "b")) -> Pool:
    latents = torch.randn((count, 4, 8, 8), generator=torch.Generator().manual_seed(seed))
    names = tuple(slices[place % len(slices)] for place in range(count))
    return Pool(latents, tuple(f"{name} {place}" for place, name in enumerate(names)), names, ((16, 16),) * count)


@pytest.fixture
def make_learner(base: Path) -> MakeLearner:
    """A new denoiser with student and teacher, and a learner on it by a method; keywords replace those of `UPDATE`."""

    def make(
        num_replay: int | None = None,
        seed: int = 0,
        method: str | tuple[str, ...] = "replay_distill",
        precision: Precision = "float32",
        processes: Processes = ALONE,
        parts: int = 1,
        pools: Pools | None = None,
        kept: Kept | None = None,
        in_step: bool = False,
        **changes: object,
    ) -> Learner:
        denoiser = open_denoiser(base, Compute(device="cpu", threads=1, precision=precision))
        for name in (TEACHER, STUDENT):
            denoiser.adapters.add_fresh(name, LORA, seed=0)
        changes = {"methods": {name: knobs for name, knobs in KNOBS.items() if name in methods_of(method)}} | changes
        update = Update.model_validate({**dict(UPDATE), "method": method, **changes})
        methods = Methods.of(update)
        if num_replay is None:
            num_replay = 9 if methods.replays else 0
        old = pool(2, num_replay)
        pools = pools or Pools(pool(1, 11), old, old if num_replay else pool(2, 9))
        return Learner(
            denoiser,
            pools,
            update,
            seed=seed,
            methods=methods,
            kept=kept or {},
            processes=processes,
            parts=parts,
            in_step=in_step,
        )

    return make
