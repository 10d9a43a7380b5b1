"""Configuration: strict, and every mistake is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from cl_steps.config import load_params, load_run, parse_overrides
from cl_steps.errors import UsageError


def load(tmp_path: Path, content: str) -> object:
    (tmp_path / "params.yaml").write_text(content)
    return load_params(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("updat: {}", "unknown key 'updat'"),
        ("update: {stepz: 3}", "unknown key 'update.stepz'"),
        ("update: {steps: many}", "update.steps"),
        ("update: {steps: 0}", "update.steps"),
        ("update: {learning_rate: 1.0}", "below base_learning_rate"),
        ("evaluate: {looks: [90, 40]}", "looks must rise"),
        ("seed: true", "seed"),
        ("format: 2", "format"),
        ("name: ../x", "name"),
        ("- a", "keys and values"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, content)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_may_be_written_as_people_write_it(tmp_path: Path) -> None:
    assert load(tmp_path, "update: {learning_rate: 5e-5}").update.learning_rate == 5e-5  # type: ignore[attr-defined]


def test_no_params_is_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="retain init"):
        load_params(tmp_path)


def test_overrides_reach_only_their_keys(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("update: {steps: 5}")
    (tmp_path / "run.yaml").write_text("{id: r-1, set: {update.batch_size: 8}}")
    params = load_params(tmp_path, load_run(tmp_path))
    assert (params.update.steps, params.update.batch_size) == (5, 8)


@pytest.mark.parametrize("pair", ["steps", "a b=1", "=1", "update..steps=1"])
def test_an_override_that_is_none(pair: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        parse_overrides([pair])


def test_override_values_are_yaml() -> None:
    assert parse_overrides(["a.b=1", "c=[1, 2]", "d=x"]) == {"a.b": 1, "c": [1, 2], "d": "x"}
