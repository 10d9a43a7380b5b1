"""A curriculum: the shares, bands and layers of its stages are those that steps have."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cl_steps.errors import UsageError
from cl_steps.learning.methods.curriculum import Knobs
from cl_steps.learning.plan import Planner, Stage
from tests.learning.conftest import MakeLearner

SQUARE = (8, 8)
STAGES = (
    Stage(until=0.3, new=0.25, band=(0.5, 1.0), nearest=0.4),
    Stage(until=0.5, new=0.75, band=(0.0, 0.2)),
    Stage(),
)
PLANNER = Planner(0, (SQUARE,) * 10, (SQUARE,) * 6, 8, {SQUARE: (1, 2, 2)}, 0.0, 40, STAGES, tuple(range(9, -1, -1)))


def test_each_stage_has_its_steps_its_share_of_new_rows_and_its_noise() -> None:
    plans = [PLANNER.plan(step) for step in range(40)]
    assert [len(plan.new) for plan in plans] == [2] * 12 + [6] * 8 + [4] * 20
    assert all(len(plan.new) + len(plan.replay) == len(plan.u) == 8 for plan in plans)
    for plan in plans[:12]:
        assert 0.5 <= float(plan.u.min()) <= float(plan.u.max()) < 1
    for plan in plans[12:20]:
        assert 0 <= float(plan.u.min()) <= float(plan.u.max()) < 0.2
    assert max(float(plan.u.max()) for plan in plans[20:]) > 0.9


def test_the_nearest_come_first_and_each_equally_often() -> None:
    seen = torch.cat([PLANNER.plan(step).new for step in range(12)])
    assert torch.bincount(seen, minlength=10).tolist() == [0] * 6 + [6] * 4
    later = torch.cat([PLANNER.plan(step).new for step in range(20, 40)])
    assert torch.bincount(later, minlength=10).tolist() == [8] * 10


def test_one_stage_is_no_curriculum() -> None:
    plain, staged = replace(PLANNER, stages=(Stage(),)), replace(PLANNER, stages=(Stage(until=0.5), Stage()))
    for step in range(20):
        assert torch.equal(plain.plan(step).new, staged.plan(step).new)
        assert torch.equal(plain.plan(step).u, staged.plan(step).u)


def test_without_anything_to_replay_all_rows_are_new() -> None:
    assert len(replace(PLANNER, replay=()).plan(0).new) == 8


def test_nearness_is_the_champions_loss_whatever_was_learnt_since(make_learner: MakeLearner) -> None:
    learner = make_learner(method="curriculum")
    nearness = learner.planner.nearness
    assert sorted(nearness) == list(range(11))
    learner.new.latents[3].fill_(0.0)
    changed = make_learner(method="curriculum", pools=learner.pools)
    assert changed.planner.nearness != nearness
    for _ in range(3):
        learner.advance()
    assert learner.planner.nearness == nearness


def test_layers_that_are_not_named_stay_where_they_are_for_the_stage(make_learner: MakeLearner) -> None:
    stages = ({"until": 0.5, "layers": ("to_q", "up_blocks")}, {"until": 1.0})
    learner = make_learner(method=("replay", "curriculum"), methods={"curriculum": {"stages": stages}}, steps=6)

    def named(word: str) -> list[torch.Tensor]:
        weights = learner.denoiser.adapters.weights("default")
        return [value.clone() for name, value in weights.items() if word in name]

    def stays(word: str, before: list[torch.Tensor]) -> bool:
        return all(map(torch.equal, before, named(word)))

    before = {word: named(word) for word in ("to_q", "to_k")}
    for _ in range(3):
        learner.advance()
    learnt = [name for name in ("to_q", "to_k") if not stays(name, before[name])]
    assert "to_q" in learnt
    down = [
        name for name in learner.denoiser.adapters.weights("default") if "to_q" not in name and "up_blocks" not in name
    ]
    assert down
    for _ in range(3):
        learner.advance()
    assert not stays("to_k", before["to_k"])


def test_words_that_no_layer_has_are_refused(make_learner: MakeLearner) -> None:
    with pytest.raises(UsageError, match="no layer that learns has decoder in its name"):
        make_learner(method="curriculum", methods={"curriculum": {"stages": ({"layers": ("decoder",)},)}})


@pytest.mark.parametrize(
    ("stages", "fault"),
    [
        (({"until": 0.5},), "must rise to 1"),
        (({"until": 1.0}, {"until": 0.5}), "must rise to 1"),
        (({"band": (0.5, 0.5)},), "band must rise"),
        ((), "at least 1"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(stages: tuple[object, ...], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Knobs.model_validate({"stages": stages})
