"""The step `update` on a tiny workspace: outputs, resuming, refusals, and that evaluation rows stay closed."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cl_steps.config import Compute, Lora, Params, RunSpec, Serving, Update
from cl_steps.data.shards import Asset, read_assets, read_manifest, write_dataset
from cl_steps.documents import json_text
from cl_steps.errors import IntegrityError, NoUsableData, UsageError
from cl_steps.learning import encoding
from cl_steps.learning.encoding import encoder
from cl_steps.learning.guard import Guard, Looks
from cl_steps.learning.learner import Learner
from cl_steps.learning.methods.catalogue import Methods
from cl_steps.learning.methods.method import STUDENT, TEACHER
from cl_steps.learning.plan import Plan
from cl_steps.learning.processes import ALONE
from cl_steps.models.lora import FILE_NAME, adapter_digest
from cl_steps.models.model import Denoiser, open_denoiser
from cl_steps.run.context import Context, StepReport
from cl_steps.steps import update
from tests.tiny import disturb, make_tiny_pipeline

LORA = Lora(rank=2, alpha=4, target_modules=("to_q", "conv1"))
PARAMS = Params(
    update=Update(
        steps=6,
        batch_size=6,
        learning_rate=5e-2,
        base_learning_rate=1e-1,
        checkpoint_every=2,
        replay_capacity=12,
        probe_budget=99.0,
        lora=LORA,
    ),
    compute=Compute(device="cpu", threads=1),
)
COUNTS = {"train": 8, "probe": 3, "evaluation": 4}


def asset(slice_name: str, split: str, number: int, size: tuple[int, int] = (16, 16)) -> Asset:
    seed = int.from_bytes(hashlib.sha256(f"{slice_name}{split}{number}".encode()).digest()[:4], "big")
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    name = hashlib.sha256(buffer.getvalue()).hexdigest()
    facts = ("", "", "", *size, b"8" * 8, b"t" * 192, name, "run")
    return Asset(name, f"{slice_name} {number % 3}", slice_name, split, False, *facts, buffer.getvalue())


def dataset(folder: Path, *slices: str, splits: tuple[str, ...] = ("train", "probe", "evaluation")) -> None:
    write_dataset(folder, [asset(name, split, n) for name in slices for split in splits for n in range(COUNTS[split])])


def make_workspace(root: Path) -> Path:
    """What `update` reads: a tiny base, a fresh adapter, a replay buffer of two slices and a batch of a new one."""
    make_tiny_pipeline(root / "state/base")
    denoiser = open_denoiser(root / "state/base", PARAMS.compute)
    denoiser.adapters.add_fresh("default", LORA, seed=0)
    # A champion that learnt something: a fresh adapter would hide a student that begins anew.
    disturb(denoiser, "default")
    denoiser.adapters.save("default", root / "state/adapter")
    dataset(root / "state/replay", "old a", "old b", splits=("train", "probe"))
    dataset(root / "tonight/batch", "new")
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "line")
    return tmp_path / "line"


def run(root: Path, work: Path | None = None, **changes: object) -> StepReport:
    params = PARAMS.model_copy(update={"update": PARAMS.update.model_copy(update=changes)})
    return update.run(Context(root, params, RunSpec(), work))


def outputs(root: Path) -> dict[str, bytes]:
    folder = root / "tonight/candidate"
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_night_writes_adapter_buffer_and_figures(root: Path) -> None:
    report = run(root)
    figures = report.figures
    assert report.verdict is None
    assert "8 new images in 6 steps" in report.why
    assert (figures["method"], figures["steps"], figures["examples_new"], figures["examples_replay"]) == (
        "replay_distill", 6, 8, 16,
    )  # fmt: skip
    assert all(figures[f"loss_{name}"] > 0 for name in ("new", "replay", "distillation"))
    assert set(figures["probe"]["old"]) == {"old a", "old b"}
    assert set(figures["probe"]["new"]) == {"new"}
    assert (figures["replayed"], figures["penalised"]) == (True, ["distillation"])
    assert figures["taught_by"] == adapter_digest(root / "state/adapter")
    json_text(figures)
    candidate = load_file(root / "tonight/candidate/adapter" / FILE_NAME)
    assert figures["parameters_trained"] == sum(value.numel() for value in candidate.values())
    assert adapter_digest(root / "tonight/candidate/adapter") != adapter_digest(root / "state/adapter")


def test_the_next_buffer_is_balanced_and_holds_no_evaluation_rows(root: Path) -> None:
    run(root)
    rows = read_manifest(root / "tonight/candidate/replay").to_pylist()
    kept = {name: [row["slice"] for row in rows if row["split"] == name] for name in COUNTS}
    assert {name: kept["train"].count(name) for name in ("old a", "old b", "new")} == {"old a": 4, "old b": 4, "new": 4}
    assert {name: kept["probe"].count(name) for name in ("old a", "old b", "new")} == {"old a": 1, "old b": 1, "new": 1}
    assert kept["evaluation"] == []
    assert len(read_assets(root / "tonight/candidate/replay")) == len(rows)


def test_the_same_inputs_give_the_same_bytes(root: Path) -> None:
    first = (json_text(run(root).figures), outputs(root))
    torch.manual_seed(99)
    assert (json_text(run(root).figures), outputs(root)) == first


def test_evaluation_rows_are_never_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str | None] = []
    own = encoding.iter_assets

    def spy(folder: Path, split: str | None = None, names: Collection[str] | None = None) -> Iterator[Asset]:
        opened.append(split)
        yield from own(folder, split, names)

    monkeypatch.setattr(encoding, "iter_assets", spy)
    run(root)
    assert set(opened) == {"train", "probe"}


def test_a_night_encodes_only_what_no_night_before_it_has_seen(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    own = Denoiser.encode_images

    def encode(self: Denoiser, images: Sequence[Image.Image]) -> torch.Tensor:
        encoded.append(len(images))
        return own(self, images)

    first = run(root, tmp_path / "work")
    expected = outputs(root)
    first.once_stored()
    monkeypatch.setattr(Denoiser, "encode_images", encode)
    second = run(root, tmp_path / "work")
    assert (sum(encoded), json_text(second.figures), outputs(root)) == (0, json_text(first.figures), expected)
    second.once_stored()
    write_dataset(root / "state/replay", [])
    shutil.rmtree(root / "tonight/batch")
    dataset(root / "tonight/batch", "new", "another")
    run(root, tmp_path / "work")
    assert sum(encoded) == COUNTS["train"] + COUNTS["probe"]


def test_pictures_are_learnt_at_the_size_of_their_shape(root: Path) -> None:
    for folder in ("state/base", "tonight/batch"):
        shutil.rmtree(root / folder)
    make_tiny_pipeline(root / "state/base", side=32)
    pictures = [asset("new", split, n, side) for split in COUNTS for n in range(4) for side in ((16, 16), (24, 12))]
    write_dataset(root / "tonight/batch", pictures)
    figures = run(root).figures
    assert figures["sizes"] == {"32x32": 4, "48x24": 4}
    assert figures["loss_new"] > 0
    assert update.run(
        Context(root, PARAMS.model_copy(update={"serving": Serving(width=16, height=16)}), RunSpec())
    ).figures["sizes"] == {"16x16": 8}


def test_images_of_evaluation_rows_may_be_missing_altogether(root: Path) -> None:
    whole = run(root)
    shutil.rmtree(root / "tonight/batch")
    dataset(root / "tonight/batch", "new", splits=("train", "probe"))
    assert json_text(run(root).figures) == json_text(whole.figures)


class PowerCut(BaseException):
    """Ends a run where it stands."""


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_run_cut_off_anywhere_ends_with_the_same_bytes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    expected = (json_text(run(root).figures), outputs(root))
    shutil.rmtree(root / "tonight/candidate")
    own = Learner.advance

    def advance(self: Learner) -> None:
        if self.step == stop:
            raise PowerCut
        own(self)

    monkeypatch.setattr(Learner, "advance", advance)
    with pytest.raises(PowerCut):
        run(root, tmp_path / "work")
    steps: list[int] = []
    monkeypatch.setattr(Learner, "advance", lambda self: (steps.append(self.step), own(self))[1])
    report = run(root, tmp_path / "work")
    assert (json_text(report.figures), outputs(root)) == expected
    assert steps[0] == stop // 2 * 2
    report.once_stored()
    assert list((tmp_path / "work/checkpoints").iterdir()) == []


def test_a_result_that_could_not_be_stored_is_not_learnt_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(root, tmp_path / "work")
    expected = outputs(root)
    monkeypatch.setattr(Learner, "advance", lambda self: pytest.fail("it was learnt again"))
    again = run(root, tmp_path / "work")
    assert (json_text(again.figures), outputs(root)) == (json_text(first.figures), expected)
    assert again.earlier_seconds > 0


@pytest.mark.parametrize("how", ["asked", "out of memory"])
def test_parts_of_a_batch_are_learnt_as_the_whole(
    root: Path, monkeypatch: pytest.MonkeyPatch, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, wanted = run(root).figures, load_file(root / "tonight/candidate/adapter" / FILE_NAME)
    if how == "asked":
        monkeypatch.setenv("RETAIN_MICRO_BATCHES", "2")
    else:
        own = Learner.terms

        def terms(self: Learner, plan: Plan) -> torch.Tensor:
            if len(plan.u) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return own(self, plan)

        monkeypatch.setattr(Learner, "terms", terms)
    figures = run(root).figures
    assert (whole["micro_batches"], figures["micro_batches"]) == (1, 2)
    assert ("each step is computed in 2 parts" in capsys.readouterr().err) is (how != "asked")
    for key, value in load_file(root / "tonight/candidate/adapter" / FILE_NAME).items():
        torch.testing.assert_close(value, wanted[key], atol=2e-4, rtol=1e-3)
    assert figures["loss_distillation"] == pytest.approx(whole["loss_distillation"], rel=1e-3)


def test_the_number_of_parts_is_remembered_and_is_no_part_of_the_key(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETAIN_MICRO_BATCHES", "4")
    run(root, tmp_path / "work")
    monkeypatch.delenv("RETAIN_MICRO_BATCHES")
    assert run(root, tmp_path / "work").figures["micro_batches"] == 4


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_wrong_number_of_parts_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("RETAIN_MICRO_BATCHES", value)
    with pytest.raises(UsageError, match="RETAIN_MICRO_BATCHES must be a whole number from 1 up"):
        run(root)


def test_sigterm_saves_and_exits_with_143(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = (json_text(run(root).figures), outputs(root))
    own = Learner.advance

    def advance(self: Learner) -> None:
        own(self)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Learner, "advance", advance)
    with pytest.raises(SystemExit) as stopped:
        run(root, tmp_path / "work")
    monkeypatch.setattr(Learner, "advance", own)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert [file.name for file in (tmp_path / "work/checkpoints").rglob("*.json")] == ["step-00000003.json"]
    assert (json_text(run(root, tmp_path / "work").figures), outputs(root)) == expected


def test_the_key_of_checkpoints_changes_with_every_input(root: Path) -> None:
    def key(**changes: object) -> str:
        return update.run_key(Context(root, PARAMS.model_copy(update=changes), RunSpec()))

    keys = [key(), key(seed=1), key(update=PARAMS.update.model_copy(update={"steps": 7}))]
    keys.append(key(serving=PARAMS.serving.model_copy(update={"width": 24, "height": 16})))
    keys.append(key(compute=PARAMS.compute.model_copy(update={"base": "int8"})))
    as_good = {"threads": 2, "checkpointing": True, "offload": True, "shard": True}
    assert key(compute=PARAMS.compute.model_copy(update=as_good)) == key() == keys[0]
    for folder, names in (("tonight/batch", ("other",)), ("state/replay", ("old a",))):
        shutil.rmtree(root / folder)
        dataset(root / folder, *names)
        keys.append(key())
    (root / "state/base/scheduler/scheduler_config.json").write_text("{}")
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_finetune_replays_nothing_loads_no_teacher_and_never_backs_off(root: Path, tmp_path: Path) -> None:
    figures = run(root, method="finetune", probe_budget=1e-9).figures
    assert (figures["replayed"], figures["taught_by"], figures["penalised"]) == (False, None, [])
    assert (figures["examples_replay"], figures["loss_replay"], figures["loss_distillation"]) == (0, None, None)
    assert figures["probe"]["backed_off"] is False
    denoiser = open_denoiser(root / "state/base", PARAMS.compute)
    context = Context(root, PARAMS.model_copy(update={"update": PARAMS.update}), RunSpec())
    update.prepare(context, denoiser, Methods.of(Update(method="finetune")), encoder(denoiser, ALONE, None, tmp_path))
    assert denoiser.adapters.names == ("default",)


def test_replay_without_distillation(root: Path) -> None:
    figures = run(root, method="replay").figures
    assert figures["loss_distillation"] is None
    assert figures["loss_replay"] > 0


def test_the_first_night_of_a_line_without_data_has_nothing_to_replay(root: Path) -> None:
    shutil.rmtree(root / "state/replay")
    write_dataset(root / "state/replay", [])
    figures = run(root).figures
    assert (figures["examples_replay"], figures["loss_replay"], figures["probe"]["old"]) == (0, None, {})


def test_a_guard_that_goes_back_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rise = {"old a": {"rise": 0.2, "rise_lower": 0.1}}
    monkeypatch.setattr("cl_steps.learning.guard.compare", lambda *_: rise)
    report = run(root, probe_budget=0.05)
    assert report.why == "the probe loss of old a rose by 20.0%, beyond 5.0%: went back to step 0"
    assert report.figures["probe"]["kept_step"] == 0


def test_what_cannot_be_learnt_is_refused_with_what_to_do(root: Path) -> None:
    with pytest.raises(UsageError, match=r"rank 2: set update\.lora\.rank"):
        run(root, lora=LORA.model_copy(update={"rank": 8}))
    shutil.rmtree(root / "tonight/batch")
    dataset(root / "tonight/batch", "new", splits=("evaluation",))
    with pytest.raises(NoUsableData, match="no training images"):
        run(root)
    (root / "state/adapter" / FILE_NAME).unlink()
    with pytest.raises(IntegrityError, match="there is no"):
        run(root)


def test_the_student_begins_where_the_champion_ended_and_the_champion_teaches(root: Path, tmp_path: Path) -> None:
    context = Context(root, PARAMS, RunSpec())
    denoiser = open_denoiser(root / "state/base", PARAMS.compute)
    update.prepare(context, denoiser, Methods.of(Update()), encoder(denoiser, ALONE, None, tmp_path))
    champion = open_denoiser(root / "state/base", PARAMS.compute)
    champion.adapters.load("default", root / "state/adapter")
    fresh = open_denoiser(root / "state/base", PARAMS.compute)
    fresh.adapters.add_fresh("default", LORA, seed=0)
    expected = champion.adapters.weights("default")
    assert any(not torch.equal(value, fresh.adapters.weights("default")[key]) for key, value in expected.items())
    for name in (STUDENT, TEACHER):
        assert all(torch.equal(value, expected[key]) for key, value in denoiser.adapters.weights(name).items())


def test_who_learns_next_to_nothing_ends_where_the_champion_is(root: Path) -> None:
    run(root, steps=1, learning_rate=1e-12, base_learning_rate=1e-11)
    champion, candidate = (
        load_file(root / name / FILE_NAME) for name in ("state/adapter", "tonight/candidate/adapter")
    )
    assert champion.keys() == candidate.keys()
    assert all(torch.allclose(value, candidate[key], atol=1e-9) for key, value in champion.items())


def test_the_last_step_is_looked_at_whatever_the_number_of_steps(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    own = Guard.look
    monkeypatch.setattr(Guard, "look", lambda self, learner: (looked.append(learner.step), own(self, learner)))
    monkeypatch.setattr(Looks, "within", lambda *_: Looks())
    run(root, steps=7, checkpoint_every=2)
    assert looked == [2, 4, 6, 7]
