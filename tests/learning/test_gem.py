"""GEM and A-GEM: against brute force, no-ops where nothing is violated, and what a step does to the memories."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from cl_steps.learning.learner import Learner
from cl_steps.learning.methods.agem import excess
from cl_steps.learning.methods.gem import Gem, Knobs, Memory, multipliers
from tests.learning.conftest import MakeLearner


def projected(rows: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    return gradient + rows.T @ multipliers(rows @ rows.T, rows @ gradient)


@pytest.mark.parametrize("seed", range(20))
def test_the_projection_is_the_nearest_gradient_that_harms_no_memory(seed: int) -> None:
    random = np.random.default_rng(seed)
    tasks, size = int(random.integers(1, 6)), 9
    rows, gradient = random.normal(size=(tasks, size)), random.normal(size=size)
    if seed % 4 == 3:
        rows[-1] = rows[0] * 2  # a memory that says what another says: the Gram matrix is singular
    found = projected(rows, gradient)
    assert (rows @ found >= -1e-8).all()
    by_force = minimize(
        lambda v: np.square(v - gradient).sum() / 2,
        np.zeros(size),
        jac=lambda v: v - gradient,
        constraints={"type": "ineq", "fun": lambda v: rows @ v, "jac": lambda _: rows},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    ).x
    np.testing.assert_allclose(found, by_force, atol=1e-5)


def test_a_gradient_that_harms_nothing_is_left_alone() -> None:
    rows = np.eye(3)[:2]
    assert not multipliers(rows @ rows.T, rows @ np.array([1.0, 0.0, -5.0])).any()
    assert multipliers(rows @ rows.T, rows @ np.array([-1.0, 1.0, 0.0])).tolist() == pytest.approx([1, 0])


def test_what_is_no_number_is_left_for_the_step_to_refuse() -> None:
    assert not multipliers(np.array([[np.nan]]), np.array([-1.0])).any()


def test_a_margin_is_added_to_the_multipliers() -> None:
    assert multipliers(np.eye(2), np.array([-1.0, 2.0]), 0.5).tolist() == pytest.approx([1.5, 0.5])


def memories(learner: Learner) -> list[Tensor]:
    return [Memory.of(learner, name, 3).gradient(learner) for name in ("a", "b")]


def test_gem_projects_by_slices_in_the_learner(make_learner: MakeLearner) -> None:
    learner = make_learner(method="gem")
    [rule] = learner.rules
    one, other = memories(learner)
    against = -one - 0.1 * other
    found = against.clone()
    rule(learner, found)
    rows = torch.stack([one, other]).double().numpy()
    expected = projected(rows, against.double().numpy())
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4 * float(one.abs().max()))
    harmless = one + other + 5 * (one - other) * 0
    if float(harmless @ one) >= 0 and float(harmless @ other) >= 0:
        same = harmless.clone()
        rule(learner, same)
        assert torch.equal(same, harmless)
    assert rule.figures()["projected_share"] in (0.5, 1.0)


def test_a_memorys_timesteps_and_noise_stay(make_learner: MakeLearner) -> None:
    learner = make_learner(method="gem")
    first, second = memories(learner), memories(learner)
    assert all(map(torch.equal, first, second))
    assert Gem(Knobs(rows=2), learner).figures() == {"projected_share": None}


def test_agem_takes_away_what_is_against_the_memory() -> None:
    memory = torch.tensor([2.0, 0.0])
    for gradient, expected, was_changed in (
        (torch.tensor([-3.0, 1.0]), [0.0, 1.0], 1),
        (torch.tensor([3.0, 1.0]), [3.0, 1.0], 0),
    ):
        changed, share = excess(gradient, memory)
        assert int(changed) == was_changed
        assert (gradient - share * memory).tolist() == expected
    assert float(excess(torch.ones(2), torch.zeros(2))[1]) == 0


@pytest.mark.parametrize("rehearse", [True, False])
def test_agem_may_learn_from_what_it_remembers_too(make_learner: MakeLearner, rehearse: bool) -> None:
    learner = make_learner(method="agem", methods={"agem": {"rows": 5, "rehearse": rehearse}})
    [rule] = learner.rules
    gradient = torch.zeros_like(learner.student)
    rule(learner, gradient)
    assert bool(gradient.any()) is rehearse
    assert int(rule.state["step"]) == 1
    assert rule.figures() == {"projected_share": 0.0}


def test_each_step_of_agem_remembers_others(make_learner: MakeLearner) -> None:
    learner = make_learner(method="agem")
    [rule] = learner.rules
    found = []
    for _ in range(2):
        gradient = torch.zeros_like(learner.student)
        rule(learner, gradient)
        found.append(gradient)
    assert not torch.equal(*found)
