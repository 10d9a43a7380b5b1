"""The learner: the loss by hand, the closed forms of averaging and of the rate, resuming bit for bit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cl_steps.config import Update
from cl_steps.errors import UsageError
from cl_steps.learning.learner import BETAS, MAX_SKIPPED, Learner, average_decay, learning_rate
from cl_steps.learning.methods.method import STUDENT, TEACHER
from cl_steps.models.model import Denoiser
from tests.learning.conftest import UPDATE, MakeLearner


def snapshot(learner: Learner) -> dict[str, Tensor]:
    return {"student": learner.student.detach().clone(), "average": learner.average.clone()}


def assert_bit_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


def test_each_half_is_normalised_by_its_own_count(make_learner: MakeLearner) -> None:
    learner = make_learner(batch_size=7, caption_dropout=0.0, method="replay")
    plan = learner.planner.plan(0)
    by_hand = []
    for pool, places, rows in ((learner.new, plan.new, slice(0, 4)), (learner.replay, plan.replay, slice(4, 7))):
        texts = [pool.texts[place] for place in places.tolist()]
        errors = learner.denoiser.errors(
            pool.latents[places],
            torch.stack(plan.noise[rows]),
            learner.denoiser.schedule.at(plan.u[rows]),
            texts,
            STUDENT,
        )
        by_hand.append(errors.sum() / len(texts))
    torch.testing.assert_close(learner.terms(plan).detach(), torch.stack(by_hand), atol=1e-5, rtol=1e-5)


def test_dropped_captions_become_the_empty_prompt(make_learner: MakeLearner) -> None:
    learner = make_learner(caption_dropout=0.5, method="replay")
    plan = next(
        plan for plan in map(learner.planner.plan, range(99)) if plan.dropped[:3].tolist() == [True, False, True]
    )
    texts = ["", learner.new.texts[int(plan.new[1])], ""]
    errors = learner.denoiser.errors(
        learner.new.latents[plan.new],
        torch.stack(plan.noise[:3]),
        learner.denoiser.schedule.at(plan.u[:3]),
        texts,
        STUDENT,
    )
    torch.testing.assert_close(learner.terms(plan)[0].detach(), errors.mean(), atol=1e-5, rtol=1e-5)


def test_the_average_is_the_closed_form(make_learner: MakeLearner) -> None:
    learner = make_learner()
    expected = learner.student.detach().clone().double()
    for step in range(6):
        learner.advance()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * learner.student.detach()
    torch.testing.assert_close(learner.average.double(), expected, atol=1e-6, rtol=1e-5)
    assert [average_decay(step, 0.5) for step in (0, 8, 10**6)] == [0.1, 0.5, 0.5]


def test_the_rate_warms_up_and_follows_a_cosine() -> None:
    update = Update(steps=100, warmup_share=0.1, learning_rate=1.0, base_learning_rate=2.0)
    assert [learning_rate(step, update) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert learning_rate(55, update) == pytest.approx(0.5)
    assert learning_rate(99, update) == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))


def test_within_averaged_the_student_is_its_average(make_learner: MakeLearner) -> None:
    learner = make_learner()
    for _ in range(3):
        learner.advance()
    before = snapshot(learner)
    with learner.averaged():
        assert torch.equal(learner.student, learner.average)
    assert_bit_equal(before, snapshot(learner))


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_resumed_equals_uninterrupted_bit_for_bit(make_learner: MakeLearner, stop: int) -> None:
    whole, first, second = make_learner(), make_learner(), make_learner()
    for _ in range(12):
        whole.advance()
    for _ in range(stop):
        first.advance()
    torch.manual_seed(7)
    second.restore(first.step, first.state())
    for _ in range(12 - stop):
        second.advance()
    assert_bit_equal(snapshot(whole), snapshot(second))
    assert_bit_equal(whole.state(), second.state())
    assert whole.tail_means() == second.tail_means()


def test_another_seed_is_another_run(make_learner: MakeLearner) -> None:
    one, other = make_learner(seed=0), make_learner(seed=1)
    for learner in (one, other):
        learner.advance()
        learner.advance()
    assert not torch.equal(one.student, other.student)


def test_training_lowers_the_loss_and_leaves_base_and_teacher_alone(make_learner: MakeLearner) -> None:
    learner = make_learner(steps=40)
    unet = learner.denoiser.pipeline.unet
    frozen = {key: value.clone() for key, value in unet.state_dict().items()}
    teacher = learner.denoiser.adapters.flat(TEACHER).clone()
    before = learner.terms(learner.planner.plan(0)).detach()
    for _ in range(40):
        learner.advance()
    after = learner.terms(learner.planner.plan(0)).detach()
    assert after[0] < before[0]
    assert_bit_equal(frozen, unet.state_dict())
    assert torch.equal(learner.denoiser.adapters.flat(TEACHER), teacher)


def test_distillation_holds_the_student_near_the_teacher(make_learner: MakeLearner) -> None:
    distances = []
    for weight in (0.0, 30.0):
        learner = make_learner(steps=20, distillation_weight=weight)
        for _ in range(20):
            learner.advance()
        distances.append(float(learner.terms(learner.planner.plan(0))[2].detach()))
    assert distances[1] < 0.5 * distances[0]


def test_without_replay_nothing_asks_the_teacher(make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make_learner(method="finetune")
    asked: list[str | None] = []
    own = Denoiser.predict

    def predict(self: Denoiser, x_t: Tensor, t: Tensor, conditions: Any, adapter: str | None = STUDENT) -> Tensor:
        asked.append(adapter)
        return own(self, x_t, t, conditions, adapter)

    monkeypatch.setattr(Denoiser, "predict", predict)
    learner.advance()
    assert asked == [STUDENT]
    assert learner.planner.plan(0).new.numel() == UPDATE.batch_size


def by_hand(learner: Learner, optimizer: torch.optim.AdamW, clip_norm: float) -> None:
    """The same step with torch's own clipping and plain AdamW, on a copy of the student."""
    (weights,) = optimizer.param_groups[0]["params"]
    learner._gradients(learner.planner.plan(learner.step))
    assert learner.student.grad is not None
    weights.grad = learner.student.grad.clone()
    torch.nn.utils.clip_grad_norm_([weights], clip_norm)
    optimizer.param_groups[0]["lr"] = learning_rate(learner.step, learner.update)
    optimizer.step()


@pytest.mark.parametrize("clip_norm", [1e-3, 1e3])
def test_a_step_is_clipping_and_adamw(make_learner: MakeLearner, clip_norm: float) -> None:
    learner = make_learner(clip_norm=clip_norm, learning_rate=1e-3)
    copied = torch.nn.Parameter(learner.student.detach().clone())
    optimizer = torch.optim.AdamW([copied], 1.0, betas=BETAS, weight_decay=0.0, foreach=False)
    start = copied.detach().clone()
    for _ in range(4):
        by_hand(learner, optimizer, clip_norm)
        learner.advance()
    assert float((copied.detach() - start).abs().max()) > 1e-3
    torch.testing.assert_close(learner.student, copied, atol=1e-6, rtol=1e-5)


def test_a_run_that_blows_up_says_what_to_do_at_the_next_look_and_keeps_nothing(make_learner: MakeLearner) -> None:
    learner = make_learner()
    learner.advance()
    before = snapshot(learner)
    learner.new.latents.fill_(math.inf)
    learner.advance()
    assert_bit_equal(before, snapshot(learner))
    with pytest.raises(UsageError, match=r"lower update\.learning_rate"):
        learner.state()
    learner.advance()
    assert learner.step == UPDATE.checkpoint_every - 1
    with pytest.raises(UsageError, match=r"lower update\.learning_rate"):
        learner.advance()


def test_a_run_that_blows_up_in_its_last_step_ends_with_that(make_learner: MakeLearner) -> None:
    learner = make_learner(checkpoint_every=1000)
    learner.step = UPDATE.steps - 1
    learner.new.latents.fill_(math.inf)
    with pytest.raises(UsageError, match=r"lower update\.learning_rate"):
        learner.advance()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_takes_nearly_the_same_steps(make_learner: MakeLearner, precision: str) -> None:
    full, half = make_learner(), make_learner(precision=precision)
    start = full.student.detach().clone()
    moves = []
    for learner in (full, half):
        for _ in range(4):
            learner.advance()
        moves.append(learner.student.detach() - start)
    assert torch.cosine_similarity(*moves, dim=0) > 0.9


def test_float16_skips_a_step_that_overflows_and_gives_up_after_many(make_learner: MakeLearner) -> None:
    learner = make_learner(precision="float16")
    good = learner.new.latents.clone()
    learner.new.latents.fill_(math.inf)
    before = snapshot(learner)
    learner.advance()
    assert_bit_equal(before, snapshot(learner))
    learner.new.latents.copy_(good)
    learner.advance()
    assert not torch.equal(before["student"], snapshot(learner)["student"])
    learner.state()
    learner.new.latents.fill_(math.inf)
    learner._skipped.fill_(MAX_SKIPPED)
    learner.advance()
    with pytest.raises(UsageError, match=r"lower update\.learning_rate"):
        learner.advance()


def test_the_report_has_each_terms_mean_over_the_last_tenth(make_learner: MakeLearner) -> None:
    learner, terms = make_learner(steps=20), []
    for step in range(20):
        terms.append(learner.terms(learner.planner.plan(step)).detach())
        learner.advance()
    expected = torch.stack(terms[18:]).double().mean(dim=0)
    assert list(learner.tail_means()) == ["new", "replay", "distillation"]
    assert list(learner.tail_means().values()) == pytest.approx(expected.tolist(), rel=1e-5)


WEIGHT = 3.0


@pytest.mark.parametrize("method", ["replay_distill", "replay", "finetune"])
def test_the_gradient_is_that_of_all_terms_together(make_learner: MakeLearner, method: str) -> None:
    """New and replayed items count alike, and distillation by its weight: 1, 1 and w."""
    learner = make_learner(method=method, distillation_weight=WEIGHT)
    for _ in range(2):
        learner.advance()
    plan = learner.planner.plan(learner.step)
    learner._gradients(plan)
    assert learner.student.grad is not None
    found = learner.student.grad.clone()
    new, replayed, *penalties = learner.terms(plan)
    terms = [new, *penalties, *([replayed] if len(learner.replay) else [])]
    parts = [torch.autograd.grad(term, learner.student, retain_graph=True)[0] for term in terms]
    weights = [1.0, *(penalty.weight for penalty in learner.penalties), 1.0]
    assert method != "replay_distill" or weights == [1.0, WEIGHT, 1.0]
    assert all(float(part.abs().max()) > 0 for part in parts), "each term pulls"
    total = sum(weight * part for weight, part in zip(weights, parts, strict=False))
    torch.testing.assert_close(found, total, atol=1e-5, rtol=1e-4)


def test_the_denoising_loss_of_replayed_items_counts_as_much_as_it_is_told_to(make_learner: MakeLearner) -> None:
    """With 0 what is replayed is only compared on."""
    gradients = {}
    for weight in (0.0, 0.5, 1.0):
        learner = make_learner(method="replay_distill", methods={"replay": {"weight": weight}})
        learner._gradients(learner.planner.plan(0))
        assert learner.student.grad is not None
        gradients[weight] = learner.student.grad.clone()
    torch.testing.assert_close(gradients[0.5], (gradients[0.0] + gradients[1.0]) / 2)
    assert not torch.allclose(gradients[0.0], gradients[1.0])
