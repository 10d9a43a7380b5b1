"""EWC: the Fisher of a linear-Gaussian model in closed form, c against brute force, and the quadratics by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cl_steps.config import Update
from cl_steps.learning.learner import Learner
from cl_steps.learning.methods import ewc
from cl_steps.learning.methods.catalogue import Methods
from cl_steps.learning.methods.ewc import Diagonal, Knobs, Rank1, rank1
from cl_steps.learning.methods.method import STUDENT
from cl_steps.learning.pools import Pool
from tests.learning.conftest import MakeLearner


def knobs(**said: object) -> Knobs:
    return Knobs.model_validate(said)


def rows(count: int, size: int, seed: int = 0) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    drift = torch.randn(size, generator=random)
    return [drift + torch.randn(size, generator=random) for _ in range(count)]


def test_c_is_the_multiple_of_mu_mu_that_is_nearest_to_the_whole_fisher() -> None:
    gradients = rows(200, 7)
    mu, c = rank1(lambda: gradients)
    whole = torch.stack([torch.outer(g, g) for g in gradients]).double().mean(dim=0)
    outer = torch.outer(mu, mu).double()
    assert float(c) == pytest.approx(float((whole * outer).sum() / (outer * outer).sum()), rel=1e-5)
    errors = [float((whole - factor * c * outer).norm()) for factor in (0.99, 1.0, 1.01)]
    assert errors[1] == min(errors)


def test_gradients_that_cancel_hold_nothing() -> None:
    mu, c = rank1(lambda: [torch.ones(3), -torch.ones(3)])
    assert (float(mu.abs().sum()), float(c)) == (0, 0)


class Linear:
    """y = w x with squared error and unit noise: a learner whose Fisher is known, E[x x^T] (1 + ||w* - w||^2 ...)."""

    def __init__(self, x: Tensor, noise: Tensor) -> None:
        self.x, self.noise = x, noise
        self.student = torch.nn.Parameter(torch.zeros(x.shape[1]))

    def plan_of(self, pool: Pool, places: Tensor, *what: object) -> Tensor:
        del pool, what
        return places

    def gradient_of(self, pool: Pool, plan: Tensor) -> Tensor:
        del pool
        return -self.x[plan[0]] * self.noise[plan[0]]


def test_a_diagonal_fisher_is_that_of_a_linear_gaussian_model() -> None:
    """log p(y|x, w) = -(y - w x)^2 / 2 at w = w*: E[g_i^2] = E[x_i^2] E[noise^2] = var_i."""
    random = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.5, 1.0, 3.0])
    x, noise = torch.randn((4000, 3), generator=random) * spread, torch.randn(4000, generator=random)
    pool = Pool((), ("",) * 4000, (), ())
    found = ewc.keep(knobs(fisher="diagonal", draws=4000), Linear(x, noise), pool, {})  # type: ignore[arg-type]
    torch.testing.assert_close(found["fisher"], spread.square(), rtol=0.1, atol=0)


def test_a_diagonal_fisher_fades_by_gamma_and_theta_is_the_last() -> None:
    x, noise = torch.ones((4, 2)), torch.ones(4)
    learner, pool = Linear(x, noise), Pool((), ("",) * 4, (), ())
    before = {"fisher": torch.tensor([10.0, 0.0]), "at": torch.tensor([5.0, 5.0])}
    found = ewc.keep(knobs(fisher="diagonal", draws=4, gamma=0.5), learner, pool, before)  # type: ignore[arg-type]
    assert found["fisher"].tolist() == [6.0, 1.0]
    assert found["at"].tolist() == [0.0, 0.0]


def test_the_last_versions_triples_are_kept() -> None:
    learner, pool = Linear(torch.ones((4, 2)), torch.ones(4)), Pool((), ("",) * 4, (), ())
    kept: dict[str, Tensor] = {}
    for version in range(4):
        learner.student.data.fill_(float(version))
        kept = dict(ewc.keep(knobs(versions=3, draws=4), learner, pool, kept))  # type: ignore[arg-type]
    assert kept["at"].tolist() == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
    assert (kept["mu"].shape, kept["c"].shape) == ((3, 2), (3,))
    diagonal = ewc.keep(knobs(fisher="diagonal", draws=4), learner, pool, kept)  # type: ignore[arg-type]
    assert diagonal.keys() == {"fisher", "at"}, "another kind of Fisher begins anew"


def moved(learner: Learner) -> Tensor:
    """Move the student; returns by how much."""
    step = torch.linspace(-1, 1, learner.student.numel())
    learner.put(learner.student.detach() + step)
    return step


def test_the_diagonal_term_is_its_quadratic_and_pulls_back(make_learner: MakeLearner) -> None:
    learner = make_learner()
    at = learner.student.detach().clone()
    step, fisher = moved(learner), torch.rand(at.numel(), generator=torch.Generator().manual_seed(1))
    term = Diagonal(2.0, fisher, at)(learner.denoiser, None)  # type: ignore[arg-type]
    assert float(term.detach()) == pytest.approx(float((fisher * step.square()).sum() / 2), rel=1e-5)
    [pull] = torch.autograd.grad(term, learner.student)
    torch.testing.assert_close(pull, fisher * step)


def test_the_rank_1_term_is_its_quadratic_and_pulls_along_mu_alone(make_learner: MakeLearner) -> None:
    learner = make_learner()
    start = learner.student.detach().clone()
    step = moved(learner)
    mu, at = torch.stack(rows(2, step.numel())) / step.numel(), torch.stack([start, start + 1])
    c = torch.tensor([0.5, 3.0])
    term = Rank1(1.0, mu, c, at)(learner.denoiser, None)  # type: ignore[arg-type]
    along = torch.stack([mu[0] @ step, mu[1] @ (step - 1)])
    assert float(term.detach()) == pytest.approx(float((c * along.square()).sum() / 2), rel=1e-4)
    [pull] = torch.autograd.grad(term, learner.student)
    torch.testing.assert_close(pull, (c * along) @ mu, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("fisher", ["diagonal", "rank1"])
def test_what_was_learnt_before_is_held(make_learner: MakeLearner, fisher: str) -> None:
    """With a large weight the student moves less where the Fisher is."""
    found = []
    for weight in (0.0, 1e5):
        learner = make_learner(
            method="ewc", methods={"ewc": {"weight": weight, "fisher": fisher, "draws": 12}}, learning_rate=1e-3
        )
        start = learner.student.detach().clone()
        for _ in range(10):
            learner.advance()
        moved, kept = learner.student.detach() - start, learner.kept["ewc"]
        size = (kept["fisher"] * moved.square()).sum() if fisher == "diagonal" else (kept["mu"] @ moved).square().sum()
        found.append(float(size))
    assert found[1] < 0.5 * found[0]


def test_the_fisher_is_of_the_denoising_loss_of_one_item_at_a_time(make_learner: MakeLearner) -> None:
    learner = make_learner(method="ewc")
    [first, *_] = ewc.gradients(3, learner, learner.new)
    plan = learner.plan_of(learner.new, torch.tensor([0]), "fisher", 0)
    with learner.denoiser.adapters.active(STUDENT):
        loss = learner.terms(plan)[0]
    [expected] = torch.autograd.grad(loss, learner.student)
    torch.testing.assert_close(first, expected)
    assert learner.student.grad is None


def test_a_rebase_keeps_nothing() -> None:
    assert Methods.of(Update(method="finetune")).keep(None, Pool((), (), (), ()), {}) == {}  # type: ignore[arg-type]
