"""`retain diff`: what changed, against the sets that the versions were made of."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cl_steps.commands.diff import diff
from cl_steps.errors import UsageError
from tests.lines.explaining import Fabricated, random_line
from tests.lines.playing import line_after


def trained_on(line: Fabricated, version: str) -> set[str]:
    """The training images of a version's batch and those of its parents'."""
    tables = [line.versions[name].batch for name in (version, *line.parents(version))]
    rows = pa.concat_tables(tables)
    return set(rows.filter(pc.equal(rows["split"], "train"))["sha256"].to_pylist())


def members(line: Fabricated, version: str, part: str) -> set[str]:
    return set(line.versions[version].state[part]["sha256"].to_pylist())


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Fabricated:
    made = random_line(tmp_path_factory.mktemp("changed"), 2, 14)
    made.line.save(made.folder)
    return made


def test_data_is_that_of_the_manifests(line: Fabricated) -> None:
    for old, new in list(permutations(list(line.versions)[-4:], 2))[:8]:
        found = diff(old, new, str(line.folder), None, True)
        assert isinstance(found, dict)
        data, before, after = found["data"], trained_on(line, old), trained_on(line, new)
        assert data["learnt"]["assets"] == len(after - before)
        assert data["no_longer"]["assets"] == len(before - after)
        for part in ("replay", "evaluation"):
            key = "global_eval" if part == "evaluation" else part
            was, now = members(line, old, key), members(line, new, key)
            moved = (data[part]["old"], data[part]["new"], data[part]["in"]["assets"], data[part]["out"]["assets"])
            assert moved == (len(was), len(now), len(now - was), len(was - now))
        assert {row["sha256"] for row in data["learnt"]["examples"]} <= after - before


def test_the_same_version_differs_in_nothing(line: Fabricated) -> None:
    found = diff("champion", line.champion, str(line.folder), None, True)
    assert isinstance(found, dict)
    assert not found["parameters"]
    assert not found["libraries"]
    assert not found["digests"]
    assert found["data"]["learnt"]["assets"] == 0


def test_parameters_code_and_libraries(tmp_path: Path) -> None:
    line = Fabricated(tmp_path)
    line.night()
    record = line.versions["v2"].record
    record["parameters"] = {"file": {"update": {"steps": 5, "lora": {"rank": 4}}}, "set": {"update.steps": 7}}
    record["code"], record["environment"] = "d" * 64, {"python": "3.12", "torch": "2.14.0", "image": "i@sha256:1"}
    line.write("versions/v0002.json", record)
    line.push()
    line.line.save(tmp_path)
    found = diff("v1", "v2", str(tmp_path), None, True)
    assert isinstance(found, dict)
    assert {"key": "update.steps", "old": None, "new": 7} in found["parameters"]
    assert {"key": "name", "old": "made-up", "new": None} in found["parameters"]
    assert found["libraries"] == [{"key": "torch", "old": "2.13.0", "new": "2.14.0"}]
    assert not found["code"]["same"]
    text = diff("v1", "v2", str(tmp_path), None, False)
    assert isinstance(text, str)
    assert "update.lora.rank  null -> 4" in text
    assert "2.13.0" in text


def test_parent_and_child_are_compared_as_their_night_measured_them(tmp_path: Path) -> None:
    line_after(tmp_path / "line", nights=2)
    folder = str(tmp_path / "line")
    forth, back, far = (diff(*pair, folder, None, True) for pair in (("v2", "v3"), ("v3", "v2"), ("v1", "v3")))
    assert isinstance(forth, dict)
    assert isinstance(back, dict)
    assert isinstance(far, dict)
    assert forth["paired"]
    assert not far["paired"]
    row = next(r for r in forth["metrics"] if (r["slice"], r["metric"]) == ("old", "loss"))
    assert (row["old"], row["new"]) == (1.0, 0.9)
    assert row["difference"] == pytest.approx(-0.1)
    assert all(r["difference"] == pytest.approx(0.1) for r in back["metrics"])
    assert far["data"]["slices"] == {"added": ["new"], "removed": []}
    assert [r["old"] for r in far["metrics"]] == [None, None]


def test_what_the_store_lost_is_named(tmp_path: Path) -> None:
    line = Fabricated(tmp_path)
    line.night()
    md5 = line.versions["v2"].record["digests"]["state"]["replay"]
    (line.store / "files/md5" / md5[:2] / md5[2:]).unlink()
    line.push()
    line.line.save(tmp_path)
    text = diff("v1", "v2", str(tmp_path), None, False)
    assert isinstance(text, str)
    assert "not counted: replay of v2" in text


def test_no_such_version(line: Fabricated) -> None:
    with pytest.raises(UsageError, match="no version 'v999'"):
        diff("v1", "v999", str(line.folder), None, False)
