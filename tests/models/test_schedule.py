"""Noise, targets and timesteps, against diffusers' own schedulers and training helpers."""

from __future__ import annotations

import pytest
import torch
from diffusers import EDMEulerScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling

from cl_steps.errors import UsageError
from cl_steps.models.schedule import RectifiedFlow, schedule_of
from tests.models.test_every_pipeline import family

CPU = torch.device("cpu")
EVEN = torch.linspace(0, 1, 1001, dtype=torch.float64)


def test_a_flow_is_that_of_diffusers_and_its_target_leads_back_to_the_image() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    schedule = schedule_of(scheduler, EVEN, CPU)
    random = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn((2, 4, 8, 8), generator=random) for _ in range(2))
    scheduler.set_timesteps(sigmas=[0.7])
    t = scheduler.timesteps.expand(2)
    x_t = schedule.add_noise(x0, noise, t)
    torch.testing.assert_close(x_t, scheduler.scale_noise(x0, scheduler.timesteps, noise))
    back = scheduler.step(schedule.target(x0, noise, t), scheduler.timesteps[0], x_t).prev_sample
    torch.testing.assert_close(back, x0, atol=1e-5, rtol=1e-5)


def test_an_inverted_flow_counts_from_the_noise() -> None:
    schedule = RectifiedFlow(EVEN, 1000, inverted=True)
    x0, noise, t = torch.ones(1, 3), torch.zeros(1, 3), torch.tensor([250.0])
    assert schedule.add_noise(x0, noise, t).tolist() == [[0.25] * 3]
    assert schedule.target(x0, noise, t).tolist() == [[1.0] * 3]


def test_timesteps_have_the_density_of_diffusers_scripts() -> None:
    schedule = RectifiedFlow(EVEN, 1000)
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    random = torch.Generator().manual_seed(0)
    drawn = compute_density_for_timestep_sampling("logit_normal", 20_000, 0.0, 1.0, generator=random)
    ours = (schedule.at(u) / 1000).quantile(torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]))
    theirs = drawn.float().quantile(torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]))
    torch.testing.assert_close(ours, theirs, atol=0.01, rtol=0)


def test_the_shift_is_that_of_the_pipelines_own_sampler() -> None:
    own = family("StableDiffusion3Pipeline")
    schedule, shift = own.schedule, own.watcher.pipeline.scheduler.config["shift"]
    assert isinstance(schedule, RectifiedFlow)
    assert shift == 3
    # Half way along the sampler's way: SD3, arXiv 2403.03206, eq. 23.
    assert float(schedule.levels[501]) == pytest.approx(shift * 0.5 / (1 + (shift - 1) * 0.5), abs=2e-3)
    assert bool((schedule.levels.diff() > 0).all())


def test_a_scheduler_of_neither_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="a EDMEulerScheduler that predicts 'epsilon': neither a variance preserving"):
        schedule_of(EDMEulerScheduler(), EVEN, CPU)
