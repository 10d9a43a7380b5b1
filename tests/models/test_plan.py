"""Plans of steps: functions of (seed, step), whole rounds, uniform timesteps."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch

from cl_steps.learning.plan import Planner, generator, stratified

PLANNER = Planner(seed=0, num_new=7, num_replay=5, batch_size=6, latent_shape=(2, 3, 3), caption_dropout=0.25)


def test_a_plan_depends_on_seed_and_step_only() -> None:
    first = PLANNER.plan(11)
    torch.manual_seed(99)
    PLANNER.plan(3)
    for name, value in vars(replace(PLANNER).plan(11)).items():
        assert torch.equal(value, getattr(first, name)), name
    assert not torch.equal(first.noise, PLANNER.plan(12).noise)
    assert not torch.equal(first.noise, replace(PLANNER, seed=1).plan(11).noise)


def test_half_is_replayed_and_the_odd_item_is_new() -> None:
    for batch_size, new, replay in ((6, 3, 3), (7, 4, 3), (1, 1, 0)):
        plan = replace(PLANNER, batch_size=batch_size).plan(0)
        assert (len(plan.new), len(plan.replay), len(plan.u)) == (new, replay, batch_size)
    plan = replace(PLANNER, num_replay=0).plan(0)
    assert (len(plan.new), len(plan.replay), plan.noise.shape) == (6, 0, (6, 2, 3, 3))


def test_each_item_is_seen_once_before_any_is_seen_again() -> None:
    for pool, size in (("new", 7), ("replay", 5)):
        places = torch.cat([getattr(PLANNER.plan(step), pool) for step in range(3 * size)]).tolist()
        rounds = [tuple(places[begin : begin + size]) for begin in range(0, len(places), size)]
        assert all(sorted(row) == list(range(size)) for row in rounds)
        assert len(set(rounds)) > len(rounds) // 2


def test_a_pool_smaller_than_its_share_is_gone_through_more_than_once_a_step() -> None:
    assert Counter(replace(PLANNER, num_new=1, batch_size=8).plan(4).new.tolist()) == {0: 4}
    assert set(Counter(replace(PLANNER, num_replay=2, batch_size=8).plan(4).replay.tolist()).values()) == {2}


def test_stratified_timesteps_hit_each_part_once_and_each_place_is_uniform() -> None:
    random = generator(0, "test")
    draws = torch.stack([stratified(8, random) for _ in range(4000)])
    assert draws.min() >= 0
    assert draws.max() < 1
    assert torch.equal((draws * 8).long().sort(dim=1).values, torch.arange(8).expand(4000, 8))
    for column in draws.T:
        counts = torch.histc(column.float(), bins=10, min=0, max=1)
        chi_squared = ((counts - 400).square() / 400).sum()
        assert chi_squared < 27.9  # 99.9 % point at 9 degrees of freedom
    assert len(stratified(0, random)) == 0


def test_captions_are_dropped_at_the_given_rate() -> None:
    rate = torch.cat([PLANNER.plan(step).dropped for step in range(1000)]).double().mean()
    assert abs(rate - 0.25) < 4 * (0.25 * 0.75 / 6000) ** 0.5
    assert not replace(PLANNER, caption_dropout=0.0).plan(0).dropped.any()
