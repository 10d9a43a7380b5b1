"""A tiny learner: a student and a teacher that start equal, new and replayed items of random latents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch

from cl_steps.config import Compute, Lora, Update
from cl_steps.learning.learner import STUDENT, Learner, Pool, Pools
from cl_steps.learning.methods.catalogue import METHODS
from cl_steps.learning.methods.method import TEACHER
from cl_steps.learning.processes import ALONE, Processes
from cl_steps.models.model import Denoiser, open_denoiser
from tests.tiny import TARGET_MODULES, make_tiny_pipeline

LORA = Lora(rank=2, alpha=4, target_modules=TARGET_MODULES)
UPDATE = Update(
    steps=12, batch_size=6, learning_rate=5e-2, base_learning_rate=1e-1, checkpoint_every=4, ema_decay=0.9, lora=LORA
)
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
    return Pool(latents, tuple(f"{name} {place}" for place, name in enumerate(names)), names)


@pytest.fixture
def make_learner(base: Path) -> MakeLearner:
    """A new denoiser with student and teacher, and a learner on it by a method; keywords replace those of `UPDATE`."""

    def make(
        num_replay: int | None = None,
        seed: int = 0,
        method: str = "replay_distill",
        precision: Precision = "float32",
        processes: Processes = ALONE,
        parts: int = 1,
        in_step: bool = False,
        **changes: object,
    ) -> Learner:
        denoiser = open_denoiser(base, Compute(device="cpu", threads=1, precision=precision))
        for name in (TEACHER, STUDENT):
            denoiser.adapters.add_fresh(name, LORA, seed=0)
        update = UPDATE.model_copy(update=changes)
        if num_replay is None:
            num_replay = 9 if METHODS[method].replays else 0
        pools = Pools(pool(1, 11), pool(2, num_replay))
        options = {
            "penalties": METHODS[method].penalties(update),
            "processes": processes,
            "parts": parts,
            "in_step": in_step,
        }
        return Learner(denoiser, pools, update, seed=seed, **options)

    return make
