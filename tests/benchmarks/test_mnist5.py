"""The learning benchmark: its distances against closed forms, and all of it in miniature, stopped and gone on with."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cl_steps.config import METHOD_NAMES, Lora
from cl_steps.learning.learner import STUDENT, Learner
from cl_steps.learning.methods.method import TEACHER
from tests.benchmarks.mnist5 import runs, table
from tests.benchmarks.mnist5.__main__ import main
from tests.benchmarks.mnist5.cost import costs
from tests.benchmarks.mnist5.digits import Digits, latents, read_digits, resized
from tests.benchmarks.mnist5.nets import MAKE, NETS, open_net, train
from tests.benchmarks.mnist5.runs import OTHERS, Bench, Run
from tests.benchmarks.mnist5.scores import coverage, divergence, frechet, kernel_distance
from tests.benchmarks.mnist5.settings import TASKS, Choice, Row, read_settings
from tests.benchmarks.mnist5.trials import tried
from tests.benchmarks.scoreboard import read

SETTINGS = read_settings()
FORM = SETTINGS.forms["miniature"]
ROWS = ("joint", "finetune", "gd_rank1", "data_free", "default")


def png(random: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (28, 28), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as that of MNIST: noise, a dozen of each class."""
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (folder / "mnist").mkdir()
    for name in ("train", "test"):
        labels = pa.array(np.tile(np.arange(10), 12), pa.int8())
        images = pa.array([{"bytes": png(random), "path": ""} for _ in labels])
        pq.write_table(pa.table({"image": images, "label": labels}), folder / "mnist" / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def digits(data: Path) -> Digits:
    return read_digits(data, FORM.size, data)


@pytest.fixture
def bench(digits: Digits) -> Bench:
    return Bench(FORM, digits, {name: open_net(name, FORM.size) for name in MAKE})


MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(bench: Bench, tmp_path: Path) -> MakeRun:
    def make(name: str) -> Run:
        return Run(bench, SETTINGS.rows[name], SETTINGS.choice(name), 0, tmp_path / name / "seed-0")

    return make


def test_the_command_plays_rows_and_enters_what_they_say(data: Path, tmp_path: Path) -> None:
    given = ["--data", str(data), "--form", "miniature", "--seeds", "0", "--out", str(tmp_path / "out")]
    given += ["--results", str(tmp_path), "--board", str(tmp_path / "board.json")]
    assert main([*given, "--rows", *ROWS]) == 0
    found = json.loads((tmp_path / "miniature.json").read_bytes())
    assert {row: [len(tasks) for tasks in seeds.values()] for row, seeds in found.items()} == {
        row: [1 if row == "joint" else 5] for row in ROWS
    }
    lines = (tmp_path / "miniature.md").read_text().splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert (tmp_path / "miniature.svg").read_text().startswith("<?xml")
    entries = {(entry.name, entry.form): entry for entry in read(tmp_path / "board.json")}
    ours = "learning/five tasks of digits, our distillation on generated pictures, half and half"
    for net in MAKE:
        entry = next(one for (name, form), one in entries.items() if name.startswith(f"{ours}: excess") and net in form)
        assert entry.goal == table.EXCESS_GOAL
        scores = {row: found[row]["0"][-1]["scores"][net]["fd"] for row in ROWS}
        excess = (scores["data_free"] - scores["joint"]) / (scores["gd_rank1"] - scores["joint"])
        assert entry.value == pytest.approx(excess, rel=1e-3)


@pytest.mark.parametrize("name", sorted(SETTINGS.rows.keys() - set(ROWS)))
def test_every_row_learns(make_run: MakeRun, name: str) -> None:
    *_, last = make_run(name).play()
    assert all(math.isfinite(last["scores"][net]["fd"]) for net in MAKE)


def without_times(done: list[dict[str, object]]) -> list[dict[str, object]]:
    return [
        {key: value for key, value in task.items() if key not in {"cpu_minutes", "cpu_seconds_a_step"}} for task in done
    ]


@pytest.mark.parametrize("name", ["gd_rank1", "default"])
def test_what_was_killed_goes_on_with_the_next_task_to_the_same_end(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole = make_run(name)
    expected = whole.play()
    other = make_run(name)
    other.folder = other.folder.with_name("killed")
    own = Run._task

    def killed(self: Run, number: int) -> object:
        if number == 2:
            raise KeyboardInterrupt
        return own(self, number)

    monkeypatch.setattr(Run, "_task", killed)
    with pytest.raises(KeyboardInterrupt):
        other.play()
    assert sorted(path.name for path in other.folder.iterdir()) == ["task-1.json", "task-2", "task-2.json"]
    numbers: list[int] = []
    monkeypatch.setattr(Run, "_task", lambda self, number: (numbers.append(number), own(self, number))[1])
    again = Run(other.bench, other.row, other.choice, other.seed, other.folder)
    assert without_times(again.play()) == without_times(expected)
    assert numbers == [2, 3, 4]
    monkeypatch.setattr(runs, "new_denoiser", lambda *_: pytest.fail("nothing is left to do"))
    assert without_times(again.play()) == without_times(expected)


def test_weights_that_are_not_whole_are_learnt_again(make_run: MakeRun) -> None:
    run = make_run("finetune")
    expected = run.play()
    (run.folder / "task-5.json").unlink()
    next((run.folder / "task-5").glob("*.safetensors")).write_bytes(b"half of it")
    again = make_run("finetune")
    assert without_times(again.play()) == without_times(expected)


@pytest.mark.parametrize(
    ("given", "code", "word"),
    [
        ([], 2, "name their folder with --data"),
        (["--data", "/nowhere"], 3, "/nowhere/mnist/train.parquet"),
        (["--data", "/nowhere", "--form", "gpu"], 2, "32 x 32"),
    ],
)
def test_what_is_missing_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, given: list[str], code: int, word: str
) -> None:
    assert main([*given, "--out", str(tmp_path)]) == code
    said = capsys.readouterr().err
    assert word in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", MAKE)
def test_the_nets_are_pinned_and_know_digits(name: str) -> None:
    open_net(name, 16)
    assert NETS[name, 16].accuracy >= 0.99


def test_a_net_is_trained_by_its_seed_alone(digits: Digits) -> None:
    one, other = (train("residual", digits, FORM.size, epochs=1).state_dict() for _ in range(2))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_no_row_learns_from_what_trials_and_scores_look_at(digits: Digits) -> None:
    parts = {name: {picture.tobytes() for picture in pictures} for name, (pictures, _) in digits.parts.items()}
    assert [len(parts[name]) for name in ("train", "held_out", "test")] == [60, 60, 120]
    assert not parts["train"] & (parts["held_out"] | parts["test"])


def test_a_picture_is_padded_and_a_block_of_it_is_a_pixel() -> None:
    picture = np.zeros((28, 28), dtype=np.uint8)
    picture[0, 0], picture[27, 27] = 200, 100
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    small, large = (resized(stream.getvalue(), size) for size in (16, 32))
    assert (small[1, 1], small[14, 14], int(small.sum())) == (50, 25, 75)
    assert (large[2, 2], large[29, 29]) == (200, 100)
    torch.testing.assert_close(latents(large[None])[0, 0, 2, 2], torch.tensor(200 / 127.5 - 1))


def test_the_distance_of_gaussians_is_the_closed_form() -> None:
    """Of N(a, A) and N(b, B) in d = 1: (a - b)^2 + (s - r)^2; and of diagonal covariances the sum over features."""
    random = np.random.default_rng(0)
    x = random.standard_normal((200_000, 2)) * (1.0, 3.0)
    y = random.standard_normal((200_000, 2)) * (2.0, 0.5) + (1.0, -2.0)
    assert frechet(x, y) == pytest.approx(1 + 4 + 1 + 6.25, rel=0.01)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    assert frechet(x @ turn, y @ turn) == pytest.approx(frechet(x, y))
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)


def test_coverage_is_the_share_of_pictures_that_samples_come_near() -> None:
    """Two far clusters, and samples in one of them."""
    random = np.random.default_rng(0)
    near, far = random.standard_normal((100, 3)), random.standard_normal((100, 3)) + 50
    real = np.concatenate([near, far])
    assert coverage(real, real) == 1
    assert coverage(random.standard_normal((2000, 3)), real) == 0.5


def test_the_kernel_distance_is_about_0_of_one_distribution_and_not_of_two() -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((2, 300, 4))
    assert abs(kernel_distance(x, y)) < 0.1
    assert kernel_distance(x + 2, y) > 1


def test_the_histogram_is_compared_by_kullback_and_leibler() -> None:
    asked = np.arange(10).repeat(10)
    assert divergence(asked, asked) == pytest.approx(0)
    assert divergence(np.zeros(100, dtype=np.int64), asked) == pytest.approx(math.log(10))


def test_the_authors_term_is_0_at_the_teacher_and_pulls_the_student_to_it_alone(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its timesteps and noise are not the step's: it asks for two passes more, of the step's own pictures."""
    learners: list[Learner] = []
    own = Learner.advance

    def advance(self: Learner) -> None:
        learners.append(self)
        own(self)

    monkeypatch.setattr(Learner, "advance", advance)
    make_run("gd").play()
    learner = learners[-1]
    [term] = learner.penalties
    plan = learner.planner.plan(learner.step)
    adapters = learner.denoiser.adapters
    adapters.put(TEACHER, adapters.flat(STUDENT).detach())
    with adapters.active(STUDENT):
        forward, _ = learner._forward(plan, learner.new)
        assert float(term(learner.denoiser, forward).detach()) == 0
    learner.put(learner.student.detach() + 0.01)
    asked: list[tuple[str | None, torch.Tensor]] = []
    predict = learner.denoiser.predict
    monkeypatch.setattr(
        learner.denoiser, "predict", lambda x, t, c, name: (asked.append((name, t)), predict(x, t, c, name))[1]
    )
    with adapters.active(STUDENT):
        loss = term(learner.denoiser, forward)
        assert float(loss.detach()) > 0
        [gradient] = torch.autograd.grad(loss, learner.student)
    assert float(gradient.abs().max()) > 0
    assert [name for name, _ in asked] == [TEACHER, STUDENT]
    assert not torch.equal(asked[0][1], forward.t[forward.num_new :])
    assert torch.equal(asked[0][1], asked[1][1])
    assert len(asked[0][1]) == len(plan.replay)


def test_a_row_keeps_what_it_may(bench: Bench, tmp_path: Path) -> None:
    """Of ER as many pictures in all as it may, evenly; a generated row its own samples; of others nothing."""

    def pools(old: object, methods: dict[str, object]) -> tuple[int, int]:
        choice = Choice(methods=methods)
        run = Run(bench, Row(words="x", old=old, choices=(choice,)), choice, 0, tmp_path)
        run.denoiser = runs.new_denoiser(FORM, 0)
        run.denoiser.adapters.add_fresh(STUDENT, Lora(rank="full"), seed=0)
        found = run._pools(2, run.methods())
        assert set(found.new.texts) == {"4", "5"}
        assert set(found.old.texts) <= {"0", "1", "2", "3"}
        return len(found.replay), len(found.memory)

    assert pools(8, {"replay": {}}) == (8, 0)
    assert pools(8, {"agem": {}}) == (0, 8)
    assert pools("generated", {"replay": {}}) == (4 * FORM.generated, 0)
    assert pools("none", {"lwf": {}}) == (0, 0)


def test_settings_have_a_choice_of_each_row_and_as_many_for_all() -> None:
    assert {len(row.choices) for row in SETTINGS.rows.values()} == {3}
    assert all(0 <= number < 3 for number in SETTINGS.chosen.values())
    assert SETTINGS.chosen.keys() <= SETTINGS.rows.keys()
    for row in SETTINGS.rows.values():
        for choice in row.choices:
            assert choice.methods.keys() <= {*METHOD_NAMES, *OTHERS}


def test_a_mean_has_an_error_where_there_are_seeds_and_ties_are_called_ties() -> None:
    one, several, other = table.Mean.of([2.0]), table.Mean.of([1.0, 3.0]), table.Mean.of([9.0, 9.2])
    assert str(one) == "2"
    assert (several.value, several.error) == (2.0, 1.0)
    assert several.ties_with(table.Mean.of([2.5, 3.5]))
    assert not several.ties_with(other)


@pytest.mark.parametrize(
    ("distances", "places"),
    [
        ({"joint": [1.0, 1.2], "default": [1.1, 1.3], "finetune": [9.0, 9.1]}, ["1=", "2=", "3"]),
        ({"joint": [1.0], "default": [3.0, 3.1]}, ["1?", "2"]),
    ],
)
def test_the_table_has_the_best_row_first_and_says_which_are_even(
    distances: dict[str, list[float]], places: list[str]
) -> None:
    def task(fd: float) -> dict[str, object]:
        score = dict.fromkeys(("fd", "kid", "coverage", "accuracy", "kld"), fd) | {"tasks": {"01": fd}}
        return {"scores": dict.fromkeys(MAKE, score), "cpu_minutes": 1.0}

    found = {row: {str(seed): [task(fd)] for seed, fd in enumerate(fds)} for row, fds in distances.items()}
    _, _, *lines = table.table(found, SETTINGS, {"default": 1.5})
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == places
    assert next(line for line in lines if "our default" in line).split(" | ")[-2] == "1.50"


def test_trials_say_how_far_each_choice_is_from_held_out_pictures(digits: Digits, tmp_path: Path) -> None:
    nets = {name: open_net(name, FORM.size) for name in MAKE}
    bench = Bench(FORM, digits, nets, TASKS[:2], "held_out")
    for row in ("joint", "default"):
        found = tried(SETTINGS, row, bench, tmp_path)
        assert len(set(found)) == len(SETTINGS.rows[row].choices)
    assert set(bench.real["plain"].asked.tolist()) == {0, 1, 2, 3}
    assert len(bench.real["plain"].asked) == 4 * 6


def test_every_row_begins_alike_and_the_first_task_is_learnt_once(make_run: MakeRun) -> None:
    one, other = make_run("lwf").play(), make_run("gd_rank1").play()
    assert without_times(one)[0] == without_times(other)[0]
    assert one[0]["cpu_seconds_a_step"] == other[0]["cpu_seconds_a_step"]
    assert one[1]["weights"] != other[1]["weights"]


def test_a_step_of_each_row_is_measured_by_a_plain_one(bench: Bench) -> None:
    found = costs(bench, SETTINGS, ["joint", "gd_rank1", "agem"], rounds=4)
    assert found["finetune"] == 1
    assert set(found) == {"finetune", "joint", "gd_rank1", "agem"}
    assert min(found.values()) > 0
