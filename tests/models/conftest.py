"""A tiny random pipeline for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cl_steps.config import Compute, Lora
from cl_steps.models.model import Denoiser, open_denoiser
from tests.tiny import TARGET_MODULES, make_tiny_pipeline


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def denoiser(base: Path) -> Denoiser:
    return open_denoiser(base, Compute(device="cpu", threads=1))


@pytest.fixture
def lora() -> Lora:
    return Lora(rank=2, alpha=6, target_modules=TARGET_MODULES)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Several threads wait for each other longer than tiny networks take."""
    torch.set_num_threads(1)
