"""Configuration: strict, and every mistake is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from cl_steps.config import Params, load_params, load_run, parse_overrides
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
        ("compute: {base: int4}", "compute.base"),
        ("compute: {base: int8, offload: true}", "leave out one of offload and base"),
        ("compute: {base: nf4, shard: true}", "leave out one of shard and base"),
        ("compute: {compile: true, shard: true}", "leave out one of shard and compile"),
        ("seed: true", "seed"),
        ("format: 2", "format"),
        ("name: ../x", "name"),
        ("- a", "keys and values"),
        ("a: [", "not valid YAML"),
        ("seed: 1\nname: x\nseed: 2", "line 3: the key 'seed' is there twice"),
        ("seed: 2020-13-45", "wrong value for 'seed'"),
        ("update:\n  steps: &a [*a]", "line 2: the alias"),
        ("ingest: {near_duplicate_rmse: .inf}", "ingest.near_duplicate_rmse"),
        ("update: {clip_norm: .inf}", "update.clip_norm"),
        ("gate: {total: {kid: .inf}}", "gate.total.kid"),
        ("gate: {checks_seconds: 1e30}", "gate.checks_seconds"),
        ("gate: {min_gain: .nan}", "gate.min_gain"),
        ("seed: 99999999999999999999", "seed"),
        ("evaluate: {looks: []}", "evaluate.looks"),
        ("update: {lora: {target_modules: ['a b']}}", "target_modules"),
        ('serving: {negative_prompt: "\\0"}', "negative_prompt"),
        ("format: 2.0", "format"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, content)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_may_be_written_as_people_write_it(tmp_path: Path) -> None:
    assert load(tmp_path, "update: {learning_rate: 5e-5}").update.learning_rate == 5e-5  # type: ignore[attr-defined]


@pytest.mark.parametrize("written", ["1e9", "1.0e9", "1000000000", "1_000_000_000", "1E9"])
def test_a_whole_number_may_be_so_too(tmp_path: Path, written: str) -> None:
    found = load(tmp_path, f"gate: {{checks_bytes: {written}}}").gate.checks_bytes  # type: ignore[attr-defined]
    assert (found, type(found)) == (10**9, int)


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"seed: 1\n\xff\xfe: 2")
    with pytest.raises(UsageError, match="line 2: it is not UTF-8"):
        load_params(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "started: yesterday",
        "started: '2026-01-01T00:00:00'",
        "base: --upload-pack=x",
        "batch: ../../x",
        "id: ok-but\n../x: 1",
        "rebase: x",
        "set: {'a b': 1}",
        "set: {update.steps: .nan}",
    ],
)
def test_what_a_run_says_of_itself_is_what_it_must_be(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.yaml").write_text(content)
    with pytest.raises(UsageError, match=r"run\.yaml"):
        load_run(tmp_path)


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


@pytest.mark.parametrize("knob", [{"base": "int8"}, {"offload": True}, {"shard": True}, {"compile": True}])
def test_every_weight_learns_of_whole_weights_alone(knob: dict[str, object]) -> None:
    full = {"update": {"lora": {"rank": "full"}}}
    assert Params.model_validate(full).update.lora.rank == "full"
    with pytest.raises(ValueError, match="needs all weights as they are"):
        Params.model_validate({**full, "compute": knob})
    Params.model_validate({"compute": knob})


def test_a_method_may_have_a_digit_in_its_name() -> None:
    assert parse_overrides(["update.methods.l2sp.weight=3"]) == {"update.methods.l2sp.weight": 3}
