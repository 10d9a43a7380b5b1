"""Every kind of thing that somebody could change is named by a verification; and nothing is where nothing was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cl_steps.__main__ import main as command
from cl_steps.documents import json_text
from cl_steps.repository.git import git
from cl_steps.repository.line import Line
from cl_steps.steps import close
from cl_steps.verify.verification import verify
from tests.lines.tampering import (
    FILES,
    TAMPERS,
    add_version,
    commit,
    folder_of,
    kinds,
    line_of_three,
    named,
    on_main,
    overwrite,
    rewrite,
    seen,
    stored,
)


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return line_of_three(tmp_path / "line")


def test_a_line_that_nobody_touched(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["verify", "--all", "--dir", folder_of(line)]) == 0
    assert "v1 to v3" in (printed := capsys.readouterr().out)
    assert "signatures checked; all as it should be" in printed
    assert command(["verify", "v2", "--dir", folder_of(line), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["versions"], document["findings"]) == (True, ["v2"], [])
    assert document["signatures"] == "checked"
    assert document["counts"]["objects"] == 24, "eight parts of the state, the intake, and three outputs of the night"
    assert seen(line, "champion").versions == ["v3"]


def test_a_fault_is_printed_and_the_sentence_counts(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    overwrite(stored(line, "state/adapter.dvc", "bytes"), b"another")
    stored(line, "state/base.dvc", "bytes").unlink()
    assert command(["verify", "--dir", folder_of(line)]) == 5
    printed = capsys.readouterr()
    assert "corrupt: v3 adapter/bytes: the bytes of object" in printed.out
    assert "missing: v3 base/bytes" in printed.out
    assert "retain verify: 2 faults: corrupt: v3 adapter/bytes; missing: v3 base/bytes; see" in printed.err
    assert command(["verify", "--all", "--dir", folder_of(line), "--json"]) == 5
    document = json.loads(capsys.readouterr().out)
    assert not document["ok"]
    found = {(finding["kind"], finding["where"], finding["fault"]) for finding in document["findings"]}
    assert found == {("corrupt", "v2 adapter/bytes", True), ("missing", "v1 base/bytes", True)}
    assert command(["verify", "v2", "--dir", folder_of(line)]) == 5, "it is of the same base"
    assert command(["verify", "v9", "--dir", folder_of(line)]) == 2
    assert command(["verify", "../v1", "--dir", folder_of(line)]) == 2


FAULTS = {
    "record": {"": "rewritten", "v2 record": "corrupt"},
    "signature": {"": "rewritten", "v2 signature": "bad_signature"},
    "provenance": {"": "rewritten", "v2 provenance": "bad_signature"},
}
"""What is found where a file of main is broken; of the others that it was written anew."""


def broken(line: Line, whats: Iterable[str], tamper: Callable[[bytes], bytes]) -> set[tuple[str, str]]:
    """Change files on main; returns what is to be found where at least, but for what only a broken record lacks."""
    files, expected = {}, set()
    for what in whats:
        path = named(line, *FILES[what])
        files[path] = tamper(on_main(line, path))
        expected |= {(where or path, kind) for where, kind in FAULTS.get(what, {"": "rewritten"}).items()}
    commit(line, files)
    return expected


def test_files_of_main(line: Line) -> None:
    expected = broken(line, FILES.keys() - {"record"}, lambda content: content[1:])
    found = {(finding.where, finding.kind) for finding in seen(line).faults}
    assert expected <= found
    assert (named(line, "events/", "answer-r-150.json"), "corrupt") in found


@pytest.mark.slow
@pytest.mark.parametrize("tamper", TAMPERS)
@pytest.mark.parametrize("what", FILES)
def test_a_file_of_main(what: str, tamper: str, line: Line) -> None:
    expected = broken(line, [what], TAMPERS[tamper]) - {("v2 record", "corrupt")}
    assert expected <= {(finding.where, finding.kind) for finding in seen(line).faults}


def without_keys(line: Line) -> Line:
    return replace(line, trusted_keys="")


@pytest.mark.slow
def test_records_must_agree_with_themselves_and_the_state_whoever_signed(line: Line) -> None:
    record = json.loads(on_main(line, "versions/v0003.json"))
    other = f"{'0' * 32}.dir"
    stages, figures = record["stages"], record["digests"]
    [dep] = [dep for dep in stages["update"]["deps"] if dep["path"] == "state/adapter"]
    assert dep["md5"] == figures["teacher"]
    edits: dict[str, Callable[[dict[str, Any]], None]] = {
        "another teacher": lambda r: r["digests"].update(teacher=other),
        "another adapter": lambda r: r["digests"]["state"].update(adapter=other),
        "another base": lambda r: r["digests"].update(base=other),
        "a stage's input": lambda r: r["stages"]["update"]["deps"][0].update(md5=other),
        "a stage's output": lambda r: r["stages"]["update"]["outs"][0].update(md5=other),
        "another parent": lambda r: r.update(parent="v1"),
        "a parent that is none": lambda r: r.update(parent="v7"),
        "an earlier moment": lambda r: r.update(created="2026-01-01T00:00:00+00:00"),
        "another number": lambda r: r.update(version="v2"),
        "no digests": lambda r: r.pop("digests"),
    }
    for name, edit in edits.items():
        edited = json.loads(json_text(record))
        edit(edited)
        rewrite(line, {"versions/v0003.json": json_text(edited).encode()})
        found = kinds(verify(without_keys(line), None, None))
        assert any(where.startswith("v3 ") for where in found), name
    rewrite(line, {"versions/v0003.json": json_text(record).encode(), "versions/v0002.json": b"{"})
    assert kinds(verify(without_keys(line), None, None))["v2 record"] == {"corrupt"}


def test_a_file_s_sha_256_counts_where_md5_is_fooled(line: Line) -> None:
    record = json.loads(on_main(line, "versions/v0003.json"))
    wrong = ("adapter/bytes", "base/bytes", "adapter/more")
    forged = {**record, "files": {**record["files"], **dict.fromkeys(wrong, "0" * 64)}}
    rewrite(line, {"versions/v0003.json": json_text(forged).encode()})
    assert kinds(verify(without_keys(line), "v3", None)) == {f"v3 {path}": {"inconsistent"} for path in wrong}


def test_tags(line: Line) -> None:
    bare = Path(line.git)
    git(bare, "tag", "-f", "model@v0.0.2", "main")
    git(bare, "tag", "model@v0.0.9", "main")
    assert kinds(seen(line)) == {"v2 tag": {"wrong_tag"}, "tag model@v0.0.9": {"wrong_tag"}}
    git(bare, "tag", "-d", "model@v0.0.2", "model@v0.0.9")
    found = seen(line)
    assert [(finding.kind, finding.where, finding.fault) for finding in found.findings] == [
        ("missing_tag", "v2 tag", False)
    ]
    close.run(line, "r-150")
    assert not seen(line).findings


def test_a_state_that_moves_by_itself_and_intakes_that_are_others(line: Line) -> None:
    taken, replay = (on_main(line, path) for path in ("data/r-100.dvc", "state/replay.dvc"))
    commit(
        line, {"state/adapter.dvc": replay, "data/r-150.dvc": taken, "data/stray.dvc": taken, "data/r-100.dvc": None}
    )
    assert kinds(seen(line)) == {
        "state/adapter.dvc": {"rewritten", "inconsistent"},
        "data/r-150.dvc": {"rewritten", "inconsistent"},
        "data/r-100.dvc": {"rewritten", "missing"},
        "data/stray.dvc": {"inconsistent"},
    }


def test_a_champion_that_is_none(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    commit(line, {"state/champion.json": b"{"})
    assert command(["verify", "--dir", folder_of(line)]) == 5
    assert "names no version" in capsys.readouterr().err
    assert kinds(seen(line))["state/"] == {"corrupt"}


def test_a_version_that_is_gone(line: Line) -> None:
    gone = {f"versions/v0002.{suffix}": None for suffix in ("json", "sig", "intoto.json")}
    commit(line, gone)
    found = kinds(seen(line, "v3"))
    assert found["v2 record"] == {"missing"}
    assert found["v3 record"] == {"missing"}
    assert found["versions/v0002.json"] == {"rewritten"}


def test_a_record_that_read_another_state_than_mains_then(line: Line) -> None:
    """Nothing else is wrong: its state, its files, its signatures are right."""
    stages = json.loads(on_main(line, "versions/v0003.json"))["stages"]
    [dep] = [dep for dep in stages["evaluate"]["deps"] if dep["path"] == "state/global_eval"]
    dep["md5"] = "0" * 32 + ".dir"
    add_version(line, stages=stages)
    found = seen(line)
    assert kinds(found) == {"v4 record": {"inconsistent"}}
    assert [fault.why for fault in found.faults] == ["evaluate read another state/global_eval than main's then"]


def test_a_record_whose_stages_ran_with_other_parameters(line: Line) -> None:
    stages = json.loads(on_main(line, "versions/v0003.json"))["stages"]
    stages["gate"]["params"]["params.yaml"]["gate"]["nightly"]["loss"] = 1e9
    add_version(line, stages=stages)
    found = seen(line)
    assert kinds(found) == {"v4 record": {"inconsistent"}}
    assert [fault.why for fault in found.faults] == ["gate ran with another gate of params.yaml than the record says"]
