"""`retain reproduce`: a version made again equals itself, and the sentence says what differs where it does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from cl_steps.commands.reproduce import reproduce
from cl_steps.errors import IntegrityError, UsageError
from cl_steps.operations import play as steps
from cl_steps.operations import reproduce as command
from cl_steps.operations.reproduce import adapter_distance
from cl_steps.pipeline import STAGES, Step
from cl_steps.repository.git import remote_refs
from cl_steps.repository.line import Line, resolve
from cl_steps.repository.mainline import reading
from cl_steps.run.context import Context, StepReport
from cl_steps.steps import promote
from cl_steps.store.pointers import lock_outs
from tests.lasting import documents
from tests.lines.fake_model import stage
from tests.lines.playing import line_after

VERDICTS = {"drift": "drifted", "gate": "promote"}


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that are run by name are those of `playing`."""
    real = steps.load

    def load_stage(step: Step) -> Any:
        return stage(step.name, VERDICTS) if step in STAGES else real(step)

    monkeypatch.setattr(steps, "load", load_stage)
    monkeypatch.setattr(promote, "_check_figures", lambda *_: None)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """Two promoted nights after v1."""
    return line_after(tmp_path_factory.mktemp("lines") / "line", nights=2)


def again(line: Line, version: str = "champion", to: Path | None = None) -> dict[str, Any]:
    found = reproduce(version, None, [], str(to) if to else None, str(Path(line.landing).parent), json=True)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("version", [pytest.param("v2", marks=pytest.mark.slow), "v3"])
def test_a_version_is_made_again_bit_for_bit(line: Line, version: str) -> None:
    before = remote_refs(line.git)
    found = again(line, version)
    assert found["equal"]
    assert found["inputs_that_differ"] == []
    assert found["adapter_distance"] == 0
    assert {row["path"] for row in found["outputs"]} >= {"tonight/candidate/adapter", "tonight/evaluation/figures"}
    assert remote_refs(line.git) == before


def test_what_was_made_can_be_kept_as_a_workspace(line: Line, tmp_path: Path) -> None:
    assert again(line, "v3", tmp_path / "again")["equal"]
    kept = resolve(str(tmp_path / "again"))
    assert "refs/heads/runs/r-2" in remote_refs(kept.git)
    assert (tmp_path / "again/state/adapter").is_dir()
    with pytest.raises(UsageError, match="is not empty"):
        again(line, "v3", tmp_path / "again")


def test_other_code_that_gives_another_adapter_is_named(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 1.0)
    monkeypatch.setattr(command, "code_digest", lambda: "f" * 64)
    with pytest.raises(IntegrityError) as error:
        again(line)
    assert "tonight/candidate/adapter" in str(error.value)
    assert "code (" in str(error.value)
    assert "drift" not in str(error.value).split("differ (")[0]


def test_on_a_gpu_a_small_difference_of_the_adapter_is_within_tolerance(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "devices", lambda _: ["NVIDIA H200"])
    spoil(monkeypatch, 1e-3)
    found = again(line)
    assert not found["equal"]
    assert found["within_tolerance"]
    assert 0 < found["adapter_distance"] < 0.01
    spoil(monkeypatch, 1.0)
    with pytest.raises(IntegrityError, match="devices"):
        again(line)


def test_v1_and_unknown_versions_are_refused(line: Line) -> None:
    for version, said in (("v1", "base as it came"), ("v9", "no version")):
        with pytest.raises(UsageError, match=said):
            again(line, version)


def test_a_batch_that_is_gone_is_an_integrity_error(tmp_path: Path) -> None:
    line = line_after(tmp_path / "line", nights=1)
    with reading(line.git) as main:
        record = documents(main)[-1]
    md5 = lock_outs(record["stages"])["tonight/batch"]["md5"]
    (Path(line.store) / "files" / "md5" / md5[:2] / md5[2:]).unlink()
    with pytest.raises(IntegrityError, match="missing"):
        again(line)


def test_the_distance_of_adapters_is_relative_to_the_first(tmp_path: Path) -> None:
    def stored(values: list[float]) -> dict[str, str]:
        content = save({"a": np.array(values, np.float32)})
        listing = json.dumps([{"md5": put(content), "relpath": "a.safetensors"}]).encode()
        return {"md5": put(listing, ".dir")}

    def put(content: bytes, ending: str = "") -> str:
        import hashlib

        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + ending
        place = tmp_path / "files" / "md5" / md5[:2] / md5[2:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return md5

    one = stored([3.0, 4.0])
    assert adapter_distance(tmp_path, one, one) == 0
    assert adapter_distance(tmp_path, one, stored([3.0, 4.5])) == pytest.approx(0.1)
    assert adapter_distance(tmp_path, one, stored([3.0])) == float("inf")


def spoil(monkeypatch: pytest.MonkeyPatch, amount: float) -> None:
    """From now on `update` adds so much noise, as a share of the adapter's length."""

    def load_stage(step: Step) -> Callable[[Context], StepReport]:
        return partial(_spoilt, amount) if step.name == "update" else stage(step.name, VERDICTS)

    monkeypatch.setattr(steps, "load", load_stage)


def _spoilt(amount: float, context: Context) -> StepReport:
    report = stage("update", VERDICTS)(context)
    path = context.path("tonight/candidate/adapter/pytorch_lora_weights.safetensors")
    weights = load(path.read_bytes())
    path.write_bytes(save({name: value * np.float32(1 + amount) for name, value in weights.items()}))
    return report
