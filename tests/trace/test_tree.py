"""`retain lineage`: what made a version, complete, out of main alone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pyarrow.compute as pc
import pytest

from cl_steps.__main__ import main
from cl_steps.commands.lineage import Node, drawn, lineage
from cl_steps.errors import UsageError
from cl_steps.repository.git import git
from cl_steps.repository.mainline import reading
from cl_steps.trace.assets import where
from cl_steps.trace.tree import lineage as document
from cl_steps.trace.versions import flat
from tests.lasting import documents
from tests.lines.explaining import Fabricated
from tests.lines.playing import line_after

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>{{7*7}}\x1b[31m'


@pytest.fixture(scope="module")
def fabricated(tmp_path_factory: pytest.TempPathFactory) -> Fabricated:
    """v1 <- v2 <- v3 <- v6, and v3 <- v4 <- v5, which were left behind; an asset of v2 was withdrawn."""
    line = Fabricated(tmp_path_factory.mktemp("told"), 3, HOSTILE)
    for _ in range(4):
        line.night()
    line.rollback("v3")
    line.night()
    line.withdraw([line.versions["v2"].batch["sha256"][0].as_py()])
    line.push()
    line.line.save(line.folder)
    return line


def told(line: Fabricated, version: str) -> dict[str, object]:
    with reading(line.line.git) as now:
        return document(now, version)


def test_chains_children_and_the_champion(fabricated: Fabricated) -> None:
    found = told(fabricated, "champion")
    assert (found["version"], found["chain"]) == ("v6", ["v3", "v2", "v1"])
    assert told(fabricated, "v3")["children"] == ["v4", "v6"]
    assert told(fabricated, "v1")["chain"] == []


def test_events_that_touch_a_version(fabricated: Fabricated) -> None:
    def kinds(version: str) -> list[str]:
        return [event["kind"] for event in told(fabricated, version)["events"]]  # type: ignore[attr-defined, index]

    assert kinds("v2") == ["withdrawal"]
    assert kinds("v3") == kinds("v4") == kinds("v5") == ["rollback"]
    assert kinds("v6") == []


def test_a_real_record_is_told_whole(tmp_path: Path) -> None:
    line = line_after(tmp_path / "line", nights=2)
    found = lineage("v3", str(tmp_path / "line"), None, True)
    assert isinstance(found, dict)
    with reading(line.git) as now:
        before, record = documents(now)[1:]
    assert found["data"]["intakes"][0]["run"] == "r-2"
    assert found["data"]["intakes"][0]["assets"] == found["data"]["assets"] == 12
    assert found["teacher"] == {
        "version": "v2", "adapter": record["digests"]["teacher"], "is_the_parent": True, "distilled": True,
    }  # fmt: skip
    assert found["replay"]["from"] == before["digests"]["state"]["replay"]
    assert found["parameters"]["update.replay_capacity"] == {"value": 16, "default": 2000}
    assert "gate.level" not in found["parameters"]
    assert found["seeds"] == {"seed": 0, "seed_plan": 2}
    assert found["checks"]["gate"]["why"] == "the gate says promote"
    assert found["code"] == record["code"]
    assert found["libraries"]["torch"]
    assert found["signatures"] == {"record and adapter": False, "provenance": False}
    assert set(found["cost"]["steps"]) == set(record["times"])


def test_versions_resolve_through_records_and_never_through_tags(fabricated: Fabricated, tmp_path: Path) -> None:
    shutil.copytree(fabricated.line.git, tmp_path / "git")
    tip = git(tmp_path / "git", "rev-parse", "main").decode().strip()
    git(tmp_path / "git", "tag", "model@v0.0.9", tip)
    with reading(str(tmp_path / "git")) as now, pytest.raises(UsageError, match="no version 'v9'"):
        document(now, "v9")


@pytest.mark.parametrize("version", ["v99", "v0", "seven", "../v1", "v1\n"])
def test_what_is_no_version_is_one_sentence(
    fabricated: Fabricated, version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lineage", version, "--dir", str(fabricated.folder)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_overrides_are_sentences(tmp_path: Path) -> None:
    line = Fabricated(tmp_path)
    line.night()
    record = line.versions["v2"].record
    record["approval"] = {"by": "Ada", "answer": "yes", "at": "2026-01-02T00:00:00+00:00", "reason": "fine"}
    record["parameters"]["set"] = {"update.steps": 5}
    record["reports"]["gate"]["verdict"] = "inconclusive"
    record["trigger"] |= {"force": True, "by": "Bo", "reason": "must"}
    line.write("versions/v0002.json", record)
    line.push()
    assert told(line, "v2")["overrides"] == [
        "drift was forced by Bo: must",
        "the gate said inconclusive and Ada approved the candidate",
        "update.steps was 5 for this run alone",
    ]


def test_the_tree_is_plain_and_narrow(fabricated: Fabricated) -> None:
    for version in ("v1", "v2", "v6"):
        text = lineage(version, str(fabricated.folder), None, False)
        assert isinstance(text, str)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
        assert "\\x1b" in text or version == "v1"


def test_long_texts_go_on_below_themselves() -> None:
    lines = list(drawn([Node("why", "word " * 60, (Node("under", "x"),)), Node("last", "word " * 60)]))
    assert max(map(len, lines)) < 120
    assert lines[1].startswith("│  │")
    assert lines[-1].startswith("    ")


def test_a_page_that_cannot_be_written(fabricated: Fabricated, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        lineage("v2", str(fabricated.folder), str(tmp_path / "no" / "page.html"), False)


def test_flat() -> None:
    assert flat({"a": {"b": 1, "c": {"d": (1, 2)}}, "e": {}}) == {"a.b": 1, "a.c.d": [1, 2]}


def method_played(folder: Path, replayed: bool, taught_by: str | None) -> Fabricated:
    """v3 learnt by a method with a name that tells nothing, as the report of its update says."""
    line = Fabricated(folder)
    line.night()
    line.night()
    record = line.versions["v3"].record
    record["parameters"]["file"]["update"]["method"] = "lwf"
    record["reports"]["update"]["figures"] |= {"replayed": replayed, "taught_by": taught_by, "penalised": []}
    record["stages"]["update"] = {"deps": [{"path": "state/replay", "md5": "7" * 32}]}
    line.write("versions/v0003.json", record)
    line.push()
    return line


@pytest.mark.parametrize(("replayed", "taught_by"), [(False, "0" * 16), (True, None)])
def test_how_a_version_was_learnt_is_what_update_reports(tmp_path: Path, replayed: bool, taught_by: str | None) -> None:
    line = method_played(tmp_path, replayed, taught_by)
    found = told(line, "v3")
    assert found["teacher"]["distilled"] is (taught_by is not None)  # type: ignore[index]
    assert (found["replay"]["from"] is not None) is replayed  # type: ignore[index]
    batch, kept = line.versions["v2"].batch, line.versions["v2"].state["replay"]["sha256"]
    train = batch.filter(pc.equal(batch["split"], "train"))["sha256"]
    sha = str(train.filter(pc.is_in(train, kept.combine_chunks()))[0])
    where_it_went = where(line.line, sha)
    assert where_it_went.teachers == ((("v2", "v3"),) if taught_by else ())
    assert where_it_went.replayed_by == (("v3",) if replayed else ())
    line.line.save(line.folder)
    text = str(lineage("v3", str(line.folder), None, False))
    assert ("the method distils nothing" in text) is (taught_by is None)
