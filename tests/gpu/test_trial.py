"""The trial of a GPU runs whole, in miniature; what is cut or fails leaves what was there, and the rest goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cl_steps.config import Lora
from cl_steps.errors import UsageError
from cl_steps.learning.learner import Learner
from cl_steps.models import captions as module
from tests.benchmarks.scoreboard import read as read_scoreboard
from tests.gpu.trial import sections
from tests.gpu.trial.__main__ import main
from tests.gpu.trial.models import MINIATURE, REAL
from tests.gpu.trial.outcome import Outcome, Trial, read, record
from tests.gpu.trial.sections import SECTIONS, Figure, NotThereYet, Section, Setting, our_step

SETTING = Setting(torch.device("cpu"), is_miniature=True)
FIGURE = Figure("models/one", 2.0, "steps/s", "tiny", "<= 1")
LATER = ("learning",)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The file of a whole trial."""
    file = tmp_path_factory.mktemp("trial") / "trial.json"
    main(["--miniature", "--out", str(file)])
    found: dict[str, Any] = json.loads(file.read_text())
    return found


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_finds_its_figures(whole: dict[str, Any], name: str) -> None:
    found = whole["sections"][name]
    if name in LATER:
        assert found["state"] == "not there yet"
    else:
        assert found["state"] == "done", found["trace"]
        assert len(found["figures"]) >= 3
        assert all(figure["value"] > 0 for figure in found["figures"])


def test_the_goals_of_a_gpu_are_asked_of_every_model(whole: dict[str, Any]) -> None:
    rows = [figure for found in whole["sections"].values() for figure in found["figures"]]
    asked = {(row["name"].partition(",")[0], row["goal"]) for row in rows if row["goal"]}
    each = {(f"models/{name}", goal) for name in REAL for goal in ("<= 1.2", ">= 1.5")}
    assert asked == each | {("models/SDXL", "<= 24")}


def test_what_was_measured_is_said_with_it(whole: dict[str, Any]) -> None:
    outcome = Outcome.model_validate_json(json.dumps(whole))
    assert outcome.is_miniature
    assert set(outcome.versions) == {"torch", "diffusers", "peft"}
    assert outcome.device.endswith("cores")


def test_a_miniature_has_the_parts_of_the_real_model() -> None:
    assert {name: (model.make, set(model.parts)) for name, model in MINIATURE.items()} == {
        name: (model.make, set(model.parts)) for name, model in REAL.items()
    }


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("SDXL", {"unet": 2567, "vae": 84, "text_encoder": 123, "text_encoder_2": 695}),
        ("SD 1.5", {"unet": 860, "vae": 84, "text_encoder": 123}),
        ("Flux of 2 B", {"transformer": 2075, "vae": 84, "text_encoder": 123, "text_encoder_2": 325}),
    ],
)
def test_a_real_model_is_of_the_published_size_and_made_on_the_device_alone(
    name: str, millions: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.models.zoo.tiny.enliven", lambda part: None)  # which reads weights: here are none
    pipeline = REAL[name].build(torch.device("meta"), torch.bfloat16)
    parts = {key: part for key, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    assert {key: round(sum(own.numel() for own in part.parameters()) / 1e6) for key, part in parts.items()} == millions
    for key, part in parts.items():
        assert all(own.is_meta for own in (*part.parameters(), *part.buffers()))
        assert {own.dtype for own in part.parameters()} == {torch.float32 if key == "vae" else torch.bfloat16}
    numbers = [value for value in vars(pipeline.scheduler).values() if isinstance(value, torch.Tensor)]
    assert numbers
    assert not any(value.is_meta for value in numbers)


def test_steps_whose_gradient_is_no_number_are_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    model, own = MINIATURE["SD 1.5"], Learner.terms
    denoiser = model.open(SETTING.device, SETTING.dtype)
    monkeypatch.setattr(Learner, "terms", lambda learner, plan: own(learner, plan) * float("inf"))
    with pytest.raises(UsageError, match="not finite"):
        our_step(denoiser, Lora(rank=2, target_modules=("to_q",)), model.batch, SETTING)


def test_a_section_that_fails_leaves_its_figures_and_its_sentence_and_the_rest_goes_on(tmp_path: Path) -> None:
    def failing(_: Setting) -> Iterator[Figure]:
        yield FIGURE
        raise ValueError("the kernel is missing\nsecond line")

    outcome = played(tmp_path, one=failing, two=good)
    assert outcome.sections["one"].state == "failed"
    assert outcome.sections["one"].why == "ValueError: the kernel is missing"
    assert "in failing" in outcome.sections["one"].trace
    assert outcome.sections["one"].figures == (FIGURE,)
    assert outcome.sections["two"].state == "done"


def test_a_section_whose_time_is_over_is_cut_and_the_rest_goes_on(tmp_path: Path) -> None:
    def endless(_: Setting) -> Iterator[Figure]:
        yield FIGURE
        while True:
            with suppress(Exception):  # as a library may
                time.sleep(0.01)

    trial = Trial(Setting(SETTING.device, is_miniature=False), tmp_path / "trial.json")
    trial.run({"one": Section(endless, 0.1), "two": Section(good, 1)}, 60)
    assert (trial.outcome.sections["one"].state, trial.outcome.sections["one"].figures) == ("cut", (FIGURE,))
    assert trial.outcome.sections["two"].state == "done"


def test_no_section_is_begun_without_time_for_it(tmp_path: Path) -> None:
    trial = Trial(SETTING, tmp_path / "trial.json")
    trial.run({"one": Section(good, 1)}, 5)
    assert (trial.outcome.sections["one"].state, trial.outcome.sections["one"].figures) == ("cut", ())


def test_what_is_ended_from_outside_leaves_the_figures_so_far(tmp_path: Path) -> None:
    def ended(_: Setting) -> Iterator[Figure]:
        yield FIGURE
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        played(tmp_path, one=ended)
    (found,) = read(tmp_path / "trial.json").sections.values()
    assert (found.state, found.figures) == ("cut", (FIGURE,))


def test_a_trial_begun_again_goes_on_with_what_is_not_done(tmp_path: Path) -> None:
    def later(_: Setting) -> Iterator[Figure]:
        raise NotThereYet("a thing")

    def again(_: Setting) -> Iterator[Figure]:
        raise AssertionError("done already")

    played(tmp_path, one=good, two=later)
    outcome = played(tmp_path, one=again, two=good)
    assert {name: found.state for name, found in outcome.sections.items()} == {"one": "done", "two": "done"}


def test_the_file_of_another_trial_is_refused(tmp_path: Path) -> None:
    played(tmp_path, one=good)
    with pytest.raises(UsageError, match="is of another trial"):
        Trial(Setting(SETTING.device, is_miniature=False), tmp_path / "trial.json")
    (tmp_path / "trial.json").write_text("{}")
    with pytest.raises(UsageError, match="is no file of this trial"):
        Trial(SETTING, tmp_path / "trial.json")


def test_figures_of_a_gpu_are_recorded_judged_by_their_goals(tmp_path: Path) -> None:
    outcome = played(tmp_path, one=good).model_copy(update={"is_miniature": False, "device": "a GPU", "commit": "abc"})
    record(outcome, tmp_path / "results.json")
    (entry,) = read_scoreboard(tmp_path / "results.json")
    assert (entry.name, entry.value, entry.holds) == ("models/one", 2.0, False)
    assert (entry.device, entry.commit) == ("a GPU", "abc")


def test_figures_of_a_miniature_are_not_recorded(tmp_path: Path) -> None:
    played(tmp_path, one=good)
    with pytest.raises(UsageError, match="no claims"):
        main(["--out", str(tmp_path / "trial.json"), "--record"])


def test_what_is_recorded_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no file of this trial"):
        main(["--out", str(tmp_path / "none.json"), "--record"])


def test_a_section_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no section 'SDXXL'"):
        main(["--miniature", "--only", "SDXXL", "--out", str(tmp_path / "trial.json")])


def test_without_a_gpu_the_miniature_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="give --miniature"):
        main(["--out", str(tmp_path / "trial.json")])


def good(_: Setting) -> Iterator[Figure]:
    yield FIGURE


def played(folder: Path, **sections: Callable[[Setting], Iterator[Figure]]) -> Outcome:
    trial = Trial(SETTING, folder / "trial.json")
    trial.run({name: Section(figures, 60) for name, figures in sections.items()}, 600)
    return trial.outcome


def test_what_the_script_encodes_in_each_step_is_encoded_in_each_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = MINIATURE["SD 1.5"].open(torch.device("cpu"), torch.float32)
    picture = Image.new("RGB", denoiser.size)
    sections._encode_anew(denoiser, picture)
    encoded: list[object] = []
    own = module.encoded
    monkeypatch.setattr(module, "encoded", lambda *given: (encoded.append(given), own(*given))[1])
    sections._encode_anew(denoiser, picture)
    assert len(encoded) == denoiser.encoded_at_once
