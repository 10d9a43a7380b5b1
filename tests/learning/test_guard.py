"""The guard: paired figures by hand, backing off, and what it keeps over a checkpoint."""

from __future__ import annotations

import math

import pytest
import torch

from cl_steps.learning import guard as module
from cl_steps.learning.guard import DRAWS, MAX_PER_SLICE, MIN_PER_SLICE, Bank, Guard, Looks, compare
from cl_steps.learning.learner import Learner
from cl_steps.learning.methods.method import STUDENT
from tests.learning.conftest import UPDATE, MakeLearner, pool


def guard_of(learner: Learner) -> Guard:
    old, new = (Bank.of(pool(seed, 8), 0) for seed in (5, 6))
    return Guard.before(learner, old, new)


def test_compare_is_the_paired_formula() -> None:
    teacher = torch.tensor([1.0, 2.0, 3.0, 10.0], dtype=torch.float64)
    rise = torch.tensor([0.1, 0.3, 0.2, 5.0], dtype=torch.float64)
    rows = compare(("a", "a", "a", "b"), teacher + rise, teacher)
    assert rows["a"]["rise"] == pytest.approx(0.1)
    assert rows["a"]["rise_lower"] == pytest.approx((0.2 - 1.645 * 0.1 / math.sqrt(3)) / 2)
    assert rows["b"] == pytest.approx({"images": 1, "teacher": 10, "candidate": 15, "rise": 0.5, "rise_lower": 0})


def test_a_bank_is_balanced_fixed_and_limited() -> None:
    many = pool(0, 3 * MAX_PER_SLICE, ("a", "a", "b"))
    bank = Bank.of(many, 0)
    assert bank.pool.slices.count("a") == bank.pool.slices.count("b") == MAX_PER_SLICE
    assert torch.equal(bank.u, Bank.of(many, 0).u)
    quarters = (bank.u.view(-1, DRAWS) * 4).long().sort(dim=1).values
    assert torch.equal(quarters, torch.arange(DRAWS).expand_as(quarters))


@pytest.mark.parametrize("slices", [1, 2, 5, 20, 60])
@pytest.mark.parametrize(("steps", "batch_size", "checkpoint_every"), [(1000, 4, 100), (240, 32, 60), (60, 4, 50)])
def test_the_guard_costs_a_tenth_of_the_training(
    slices: int, steps: int, batch_size: int, checkpoint_every: int
) -> None:
    update = UPDATE.model_copy(update={"steps": steps, "batch_size": batch_size, "checkpoint_every": checkpoint_every})
    looks = Looks.within(update, slices)
    checkpoints = math.ceil(steps / checkpoint_every)
    number = 2 + math.ceil(checkpoints / looks.every)
    rows = number * slices * looks.images * looks.draws
    least = looks == Looks(MIN_PER_SLICE, 1, checkpoints)
    assert rows <= 0.1 * 3 * steps * batch_size or least
    assert MIN_PER_SLICE <= looks.images <= MAX_PER_SLICE
    assert 1 <= looks.draws <= DRAWS


def test_with_plenty_it_sees_all_there_is_and_with_little_it_saves_draws_first() -> None:
    many = UPDATE.model_copy(update={"steps": 10**6, "batch_size": 64, "checkpoint_every": 10**5})
    assert Looks.within(many, 2) == Looks()
    few = UPDATE.model_copy(update={"steps": 1000, "batch_size": 4, "checkpoint_every": 100})
    assert Looks.within(few, 2) == Looks(MAX_PER_SLICE, 1, 1)
    assert Looks.within(few, 5) == Looks(20, 1, 1)
    assert Looks.within(few, 20) == Looks(MIN_PER_SLICE, 1, 2)


def test_it_looks_at_every_so_many_checkpoints_and_at_the_last(make_learner: MakeLearner) -> None:
    learner = make_learner(steps=14, checkpoint_every=2)
    guard = guard_of(learner)
    guard.every = 3
    due = []
    for learner.step in range(2, 15, 2):
        due += [learner.step] if guard.is_due(learner) else []
    assert due == [6, 12, 14]


def test_what_the_last_look_saw_is_not_measured_again(
    make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(probe_budget=99.0)
    guard = guard_of(learner)
    learner.advance()
    guard.look(learner)
    measured: list[Bank] = []
    own = Bank.measure
    monkeypatch.setattr(Bank, "measure", lambda self, *rest: (measured.append(self), own(self, *rest))[1])
    probe = guard.settle(learner, may_back_off=True)
    assert measured == [guard.new]
    again = compare(guard.old.pool.slices, guard.old.measure(learner.denoiser, STUDENT), guard.teacher_old)
    assert probe["old"] == again


def test_the_unit_is_the_image(make_learner: MakeLearner) -> None:
    learner = make_learner()
    bank = Bank.of(pool(5, 3), 0)
    measured = bank.measure(learner.denoiser, STUDENT)
    for image in range(3):
        latents = bank.pool.latents[image].expand(DRAWS, -1, -1, -1)
        texts = [bank.pool.texts[image]] * DRAWS
        errors = learner.denoiser.errors(
            latents, bank.noise[image], learner.denoiser.schedule.at(bank.u[image]), texts, STUDENT
        )
        assert float(measured[image]) == pytest.approx(float(errors.mean()), rel=1e-5)


def test_before_training_nothing_has_risen(make_learner: MakeLearner) -> None:
    learner = make_learner()
    guard = guard_of(learner)
    guard.look(learner)
    assert guard.readings[0].worst()[1:] == (0.0, 0.0)


def test_within_the_budget_the_last_average_is_promoted(make_learner: MakeLearner) -> None:
    learner = make_learner(probe_budget=99.0)
    guard = guard_of(learner)
    for _ in range(4):
        learner.advance()
    guard.look(learner)
    probe = guard.settle(learner, may_back_off=True)
    assert (probe["backed_off"], probe["kept_step"]) == (False, 4)
    assert torch.equal(learner.student, learner.average)


@pytest.mark.parametrize("may_back_off", [True, False])
def test_beyond_the_budget_it_goes_back_to_the_last_look_within(make_learner: MakeLearner, may_back_off: bool) -> None:
    learner = make_learner(method="finetune", steps=60, probe_budget=1e-6)
    guard = guard_of(learner)
    learner.advance()
    guard.budget = 99.0
    guard.look(learner)
    kept = learner.average.clone()
    guard.budget = -99.0
    for _ in range(5):
        learner.advance()
    guard.look(learner)
    probe = guard.settle(learner, may_back_off)
    expected = kept if may_back_off else learner.average
    assert (probe["backed_off"], probe["kept_step"]) == ((True, 1) if may_back_off else (False, 6))
    assert probe["last"]["beyond_budget"] is True
    assert torch.equal(learner.student, expected)


def test_its_memory_survives_a_checkpoint(make_learner: MakeLearner) -> None:
    learner = make_learner()
    guard, other = guard_of(learner), guard_of(make_learner())
    learner.advance()
    guard.look(learner)
    other.restore(*guard.state())
    assert (other.kept_step, other.readings) == (guard.kept_step, guard.readings)
    assert torch.equal(other.kept, guard.kept)


def test_without_probes_it_says_nothing(make_learner: MakeLearner) -> None:
    learner = make_learner()
    empty = Bank.of(pool(0, 0), 0)
    guard = Guard.before(learner, empty, empty)
    guard.look(learner)
    probe = guard.settle(learner, may_back_off=True)
    assert (probe["old"], probe["new"], probe["backed_off"]) == ({}, {}, False)


FEW = {"a": {"images": 3, "teacher": 1.0, "candidate": 1.5, "rise": 0.5, "rise_lower": -0.1}}
"""Three probes that rose by half in the mean, and may as well have fallen."""


def test_a_rise_that_may_be_chance_backs_nothing_off(
    make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(probe_budget=0.05)
    guard = guard_of(learner)
    learner.advance()
    monkeypatch.setattr(module, "compare", lambda *_: FEW)
    guard.look(learner)
    assert guard.kept_step == 1, "it is kept as one within the budget"
    probe = guard.settle(learner, may_back_off=True)
    assert (probe["backed_off"], probe["last"]["beyond_budget"]) == (False, False)
    monkeypatch.setattr(module, "compare", lambda *_: {"a": {**FEW["a"], "rise_lower": learner.update.probe_budget}})
    guard.look(learner)
    assert guard.settle(learner, may_back_off=True)["backed_off"] is False, "the budget may be spent"
    monkeypatch.setattr(module, "compare", lambda *_: {"a": {**FEW["a"], "rise_lower": 0.06}})
    guard.look(learner)
    assert guard.settle(learner, may_back_off=True)["backed_off"] is True
