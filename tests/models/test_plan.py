"""Plans of steps: functions of (seed, step), whole rounds, uniform timesteps."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch

from cl_steps.learning.plan import Planner, generator, stratified

SQUARE, WIDE, HIGH = (8, 8), (12, 6), (6, 12)
SHAPES = {SQUARE: (2, 3, 3), WIDE: (2, 2, 5), HIGH: (2, 5, 2)}
PLANNER = Planner(seed=0, new=(SQUARE,) * 7, replay=(SQUARE,) * 5, batch_size=6, shapes=SHAPES, caption_dropout=0.25)


def test_a_plan_depends_on_seed_and_step_only() -> None:
    first = PLANNER.plan(11)
    torch.manual_seed(99)
    PLANNER.plan(3)
    again = replace(PLANNER).plan(11)
    for name in ("new", "replay", "u", "dropped"):
        assert torch.equal(getattr(again, name), getattr(first, name)), name
    assert torch.equal(torch.stack(again.noise), torch.stack(first.noise))
    assert not torch.equal(first.noise[0], PLANNER.plan(12).noise[0])
    assert not torch.equal(first.noise[0], replace(PLANNER, seed=1).plan(11).noise[0])


def test_half_is_replayed_and_the_odd_item_is_new() -> None:
    for batch_size, new, replay in ((6, 3, 3), (7, 4, 3), (1, 1, 0)):
        plan = replace(PLANNER, batch_size=batch_size).plan(0)
        assert (len(plan.new), len(plan.replay), len(plan.u)) == (new, replay, batch_size)
    plan = replace(PLANNER, replay=()).plan(0)
    assert (len(plan.new), len(plan.replay), [own.shape for own in plan.noise]) == (6, 0, [(2, 3, 3)] * 6)


def test_each_item_is_seen_once_before_any_is_seen_again() -> None:
    for pool, size in (("new", 7), ("replay", 5)):
        places = torch.cat([getattr(PLANNER.plan(step), pool) for step in range(3 * size)]).tolist()
        rounds = [tuple(places[begin : begin + size]) for begin in range(0, len(places), size)]
        assert all(sorted(row) == list(range(size)) for row in rounds)
        assert len(set(rounds)) > len(rounds) // 2


def test_a_pool_smaller_than_its_share_is_gone_through_more_than_once_a_step() -> None:
    assert Counter(replace(PLANNER, new=(SQUARE,), batch_size=8).plan(4).new.tolist()) == {0: 4}
    assert set(Counter(replace(PLANNER, replay=(SQUARE,) * 2, batch_size=8).plan(4).replay.tolist()).values()) == {2}


MIXED = replace(PLANNER, new=(SQUARE, WIDE, WIDE) * 5 + (HIGH,) * 4, replay=(HIGH, SQUARE) * 6)


def test_each_item_is_seen_once_a_round_whatever_the_sizes_and_with_noise_of_its_own_shape() -> None:
    steps = [MIXED.plan(step) for step in range(3 * 19)]
    for pool, items in (("new", MIXED.new), ("replay", MIXED.replay)):
        places = torch.cat([getattr(plan, pool) for plan in steps]).tolist()
        rounds = [places[begin : begin + len(items)] for begin in range(0, len(places), len(items))]
        assert all(sorted(row) == list(range(len(items))) for row in rounds if len(row) == len(items))
        assert len(set(map(tuple, rounds))) > len(rounds) // 2
    for plan in steps:
        items = [*(MIXED.new[place] for place in plan.new), *(MIXED.replay[place] for place in plan.replay)]
        assert list(plan.sizes) == items
        assert [own.shape for own in plan.noise] == [SHAPES[size] for size in items]


def test_most_steps_have_one_size_of_new_and_one_of_replayed_pictures() -> None:
    mixed = [len(set(MIXED.plan(step).sizes[:3])) > 1 for step in range(3 * 19)]
    # 19 places in steps of 3: of 10, 5 and 4 of a size, at most 1, 2 and 1 are left over a round.
    assert sum(mixed) <= 3 * 3 * 2
    assert not any(len(set(MIXED.plan(step).sizes[3:])) > 1 for step in range(4))


def test_some_rows_of_a_plan_are_those_rows() -> None:
    plan, rows = MIXED.plan(2), torch.tensor([1, 3, 5])
    some = plan.only(rows)
    assert (some.new.tolist(), some.replay.tolist()) == ([int(plan.new[1])], [int(plan.replay[0]), int(plan.replay[2])])
    assert torch.equal(some.u, plan.u[rows])
    assert some.sizes == tuple(plan.sizes[row] for row in rows)
    assert all(torch.equal(own, plan.noise[row]) for own, row in zip(some.noise, rows, strict=True))


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
