"""A step in parts and in shares is the step as a whole: its loss, its gradients, and what is learnt."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from cl_steps.errors import UsageError
from cl_steps.learning.guard import Bank, Guard
from cl_steps.learning.learner import Learner
from cl_steps.learning.methods.method import STUDENT, TEACHER, Forward, Over
from cl_steps.learning.plan import Plan, Planner
from cl_steps.learning.pools import Pool, Pools
from cl_steps.learning.sharing import parts_of, rows_at_once
from cl_steps.models.model import Denoiser
from cl_steps.models.watching import Size
from tests.learning.conftest import EVERY, MakeLearner, pool


def gradient(learner: Learner, plan: Plan) -> Tensor:
    learner._gradients(plan)
    assert learner.student.grad is not None
    return learner.student.grad.clone()


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("parts", [2, 3, 4, 99])
def test_gradients_in_parts_are_those_of_the_whole(make_learner: MakeLearner, method: str, parts: int) -> None:
    learner = make_learner(method=method, batch_size=7)
    learner.advance()  # so that student and teacher differ
    plan = learner.planner.plan(1)
    whole, terms = gradient(learner, plan), learner._gradients(plan)
    learner.parts = parts
    torch.testing.assert_close(gradient(learner, plan), whole, atol=2e-6, rtol=1e-4)
    torch.testing.assert_close(learner._gradients(plan), terms, atol=1e-6, rtol=1e-5)


@dataclass(frozen=True)
class Decay:
    """A term of the weights alone."""

    weight: float = 0.5
    name: str = "decay"
    over: Over = "weights"

    def __call__(self, denoiser: Denoiser, forward: Forward) -> Tensor:
        return denoiser.adapters.flat(STUDENT).square().sum()


@pytest.mark.parametrize("method", ["replay", "finetune"])
def test_a_term_of_the_weights_counts_once_a_step_in_however_many_parts(make_learner: MakeLearner, method: str) -> None:
    learner = make_learner(method=method, batch_size=7)
    plan, bare = learner.planner.plan(1), gradient(learner, learner.planner.plan(1))
    learner.penalties = (Decay(),)
    whole, terms = gradient(learner, plan), learner._gradients(plan)
    learner.parts = 3
    assert not torch.equal(whole, bare)
    torch.testing.assert_close(gradient(learner, plan), whole, atol=2e-6, rtol=1e-4)
    torch.testing.assert_close(learner._gradients(plan), terms, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("method", EVERY)
def test_what_is_learnt_in_parts_is_what_is_learnt_at_once(make_learner: MakeLearner, method: str) -> None:
    whole, divided = (make_learner(method=method, learning_rate=1e-3) for _ in range(2))
    divided.parts = 4
    for _ in range(6):
        whole.advance()
        divided.advance()
    torch.testing.assert_close(divided.average, whole.average, atol=2e-5, rtol=1e-4)
    assert divided.tail_means() == pytest.approx(whole.tail_means(), rel=1e-4)


def rows_of(plan: Plan) -> list[tuple[object, ...]]:
    """Each row of a plan as what it is made of."""
    kinds = ["new"] * len(plan.new) + ["old"] * len(plan.replay)
    places = [*plan.new.tolist(), *plan.replay.tolist()]
    return list(
        zip(
            kinds,
            places,
            plan.u.tolist(),
            [float(own[0, 0, 0]) for own in plan.noise],
            plan.dropped.tolist(),
            plan.sizes,
            strict=True,
        )
    )


@pytest.mark.parametrize("parts", [1, 2, 4, 16])
@pytest.mark.parametrize("processes", [1, 2, 3, 20])
@pytest.mark.parametrize("sizes", [((16, 16),), ((16, 16), (20, 12))])
def test_every_row_is_in_one_part_with_its_own_noise_and_counts_once(
    processes: int, parts: int, sizes: tuple[Size, ...]
) -> None:
    plan = Planner(0, sizes[:1] * 50, sizes * 15, 11, dict.fromkeys(sizes, (4, 2, 2)), 0.5).plan(3)
    found = [part for rank in range(processes) for part in parts_of(plan, rank, processes, parts)]
    assert sum(part.new for part in found) == pytest.approx(1)
    assert sum(part.replayed for part in found) == pytest.approx(1)
    assert sum(part.rows for part in found) == pytest.approx(1)
    assert sorted(row for part in found for row in rows_of(part.plan)) == sorted(rows_of(plan))
    assert max(len(part.plan.u) for part in found) <= rows_at_once(11, processes, parts)
    assert all(len(set(part.plan.sizes)) == 1 for part in found)


def mixed(seed: int, count: int) -> Pool:
    """Pictures of two shapes, in turns."""
    sizes = tuple(((16, 16), (24, 8))[place % 2] for place in range(count))
    random = torch.Generator().manual_seed(seed)
    latents = tuple(torch.randn((4, height // 2, width // 2), generator=random) for width, height in sizes)
    return Pool(latents, tuple(f"a {place}" for place in range(count)), ("a",) * count, sizes)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_over_pictures_of_several_shapes_is_the_mean_over_them(make_learner: MakeLearner, parts: int) -> None:
    learner = make_learner(pools=Pools(mixed(1, 5), mixed(2, 4)), batch_size=7, caption_dropout=0.0)
    learner.advance()  # so that student and teacher differ
    plan = learner.planner.plan(1)
    assert len(set(plan.sizes[:4])) == len(set(plan.sizes[4:])) == 2
    learner.parts = parts
    found = learner._gradients(plan).tolist()
    gathered: dict[str, list[float]] = {"new": [], "replay": [], "distillation": []}
    for row in range(7):
        pool, place = (learner.new, plan.new[row]) if row < 4 else (learner.replay, plan.replay[row - 4])
        denoiser, text = learner.denoiser.at(plan.sizes[row]), [pool.texts[int(place)]]
        x0, noise, t = (
            pool.latents[int(place)][None],
            plan.noise[row][None],
            denoiser.schedule.at(plan.u[row : row + 1]),
        )
        gathered["new" if row < 4 else "replay"] += denoiser.errors(x0, noise, t, text, STUDENT).tolist()
        if row >= 4:
            x_t, caption = denoiser.schedule.add_noise(x0, noise, t), denoiser.encode_prompts(text)
            with torch.no_grad():
                outputs = [denoiser.predict(x_t, t, caption, name) for name in (STUDENT, TEACHER)]
            gathered["distillation"].append(float((outputs[0] - outputs[1]).square().mean()))
    assert found == pytest.approx([sum(rows) / len(rows) for rows in gathered.values()], rel=1e-4)


def test_pictures_of_several_shapes_are_learnt_and_looked_at(make_learner: MakeLearner) -> None:
    learner = make_learner(pools=Pools(mixed(1, 5), mixed(2, 4)), learning_rate=1e-2)
    bank = Bank.of(mixed(3, 6), 0)
    before = bank.measure(learner.denoiser, STUDENT)
    each = torch.cat([Bank(*one).measure(learner.denoiser, STUDENT) for one in images_of(bank)])
    torch.testing.assert_close(before, each, rtol=1e-5, atol=1e-6)
    for _ in range(12):
        learner.advance()
    assert not torch.equal(bank.measure(learner.denoiser, STUDENT), before)


def images_of(bank: Bank) -> Iterator[tuple[Pool, Tensor, tuple[Tensor, ...]]]:
    """Each image of a bank as a bank's parts."""
    pool = bank.pool
    for place in range(len(pool)):
        row = slice(place, place + 1)
        own = Pool(pool.latents[row], pool.texts[row], pool.slices[row], pool.sizes[row])  # type: ignore[index]
        yield own, bank.u[row], bank.noise[row]


def short_of_memory(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """A device that holds no more than `rows` rows at a time, of training or of looking."""
    own = Denoiser.predict

    def predict(self: Denoiser, x_t: Tensor, *arguments: object) -> Tensor:
        if len(x_t) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return own(self, x_t, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Denoiser, "predict", predict)


def test_out_of_memory_ends_as_if_the_parts_were_known_before(
    make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known, surprised = make_learner(parts=2), make_learner()
    for _ in range(3):
        known.advance()
    with monkeypatch.context() as patched:
        short_of_memory(patched, 3)
        for _ in range(3):
            surprised.advance()
    assert surprised.parts == 2
    assert capsys.readouterr().err.count("each step is computed in 2 parts") == 1
    assert torch.equal(known.student, surprised.student)


def test_looking_at_probes_keeps_to_the_memory_too(make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make_learner()
    bank, none = Bank.of(pool(3, 4), 0), Bank.of(pool(3, 0), 0)
    plenty = Guard.before(learner, bank, none).teacher_old
    short_of_memory(monkeypatch, 2)
    torch.testing.assert_close(Guard.before(learner, bank, none).teacher_old, plenty, atol=1e-5, rtol=1e-5)
    assert learner.parts == 4


def test_a_memory_that_holds_not_one_image_is_said_with_what_to_do(
    make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner()
    short_of_memory(monkeypatch, 0)
    with pytest.raises(UsageError, match=r"set compute\.precision to bfloat16"):
        learner.advance()
    assert learner.parts == 8


@dataclass
class Beside:
    """Processes as threads of this one, for their arithmetic alone."""

    rank: int
    size: int
    meet: threading.Barrier
    row: dict[int, list[Tensor]] = field(default_factory=dict)
    here: tuple[int, int] = (0, 1)

    def sum(self, terms: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
        own = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
        self.row[self.rank] = [*own, terms]
        self.meet.wait()
        summed = [
            torch.stack(tensors).sum(dim=0) for tensors in zip(*(self.row[r] for r in sorted(self.row)), strict=True)
        ]
        self.meet.wait()
        for parameter, gradient in zip(parameters, summed, strict=False):
            parameter.grad = gradient
        return summed[-1]

    def any(self, flag: bool) -> bool:
        return flag

    def share(self, content: bytes) -> bytes:
        return content


@pytest.mark.parametrize(("size", "parts"), [(2, 1), (3, 2), (8, 1)])
def test_processes_learn_together_what_one_learns_alone(make_learner: MakeLearner, size: int, parts: int) -> None:
    alone, meet, row = make_learner(learning_rate=1e-3), threading.Barrier(size), {}
    group = [
        make_learner(learning_rate=1e-3, processes=Beside(rank, size, meet, row), parts=parts) for rank in range(size)
    ]
    for _ in range(4):
        alone.advance()
        threads = [threading.Thread(target=learner.advance) for learner in group]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for learner in group:
        torch.testing.assert_close(learner.average, alone.average, atol=2e-5, rtol=1e-4)
        assert learner.tail_means() == pytest.approx(alone.tail_means(), rel=1e-4)
