"""Where a workspace's places are: a copy is a line of its own, and a broken file is one sentence."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cl_steps.errors import UsageError
from cl_steps.repository.checkout import refuse_dirty, sync
from cl_steps.repository.git import text
from cl_steps.repository.line import DEPLOYMENT, Line, local, resolve
from cl_steps.repository.mainline import Change, reading
from tests.lines.small import make_workspace


def tip(line: Line) -> str:
    return text(Path(line.git), "rev-parse", "main")


def change(line: Line) -> None:
    with reading(line.git) as main:
        assert main.push(Change({"checks/test_x.py": b"pass\n"}, "a check"))


@pytest.fixture
def signed(tmp_path: Path) -> Line:
    return make_workspace(tmp_path / "line", signed=True)


def test_a_copy_is_a_line_of_its_own(signed: Line, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "line", tmp_path / "copy", symlinks=True)
    copy, before = resolve(str(tmp_path / "copy")), tip(signed)
    assert resolve(str(tmp_path / "line")) == signed
    places = [Path(value) for value in asdict(copy).values()]
    assert all(place.is_relative_to(tmp_path / "copy") for place in places)
    change(copy)
    refuse_dirty(tmp_path / "copy", copy)
    sync(tmp_path / "copy", copy)
    assert (tip(signed), tip(copy) != before) == (before, True)
    # Git by hand, too: `origin` is the copy's own.
    assert text(tmp_path / "copy", "ls-remote", "origin", "refs/heads/main").split()[0] == tip(copy)


def test_a_workspace_may_be_moved(signed: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "line").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    line = resolve(".")
    change(line)
    sync(Path(), line)
    assert Path("checks/test_x.py").exists()


def as_before(folder: Path, line: Line) -> None:
    """The file as it was written before: absolute paths."""
    (folder / DEPLOYMENT).write_text(json.dumps(asdict(line)))


def test_a_copy_of_a_workspace_of_before(signed: Line, tmp_path: Path) -> None:
    as_before(tmp_path / "line", signed)
    assert resolve(str(tmp_path / "line")) == signed
    shutil.copytree(tmp_path / "line", tmp_path / "copy", symlinks=True)
    copy = resolve(str(tmp_path / "copy"))
    assert all(Path(value).is_relative_to(tmp_path / "copy") for value in asdict(copy).values())


def test_a_file_for_another_folder_without_its_places(signed: Line, tmp_path: Path) -> None:
    (tmp_path / "other" / ".retain").mkdir(parents=True)
    as_before(tmp_path / "other", signed)
    with pytest.raises(UsageError, match=f"was written for {tmp_path / 'line'}"):
        resolve(str(tmp_path / "other"))


def test_shared_places_stay_what_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "line"
    shared = Line("ssh://git/x.git", "s3://b/x", "/mnt/work", "", "sigstore", f"{folder}/.retain/keys/trusted.yaml")
    for line in (shared, replace(shared, signing_key=f"sigstore:{folder}/s.json", landing="/mnt/land")):
        line.save(folder)
        assert resolve(str(folder)) == line
        assert str(tmp_path) not in (folder / DEPLOYMENT).read_text()


def test_a_line_is_published_where_it_lies(tmp_path: Path) -> None:
    made = make_workspace(tmp_path / "line")
    assert made == local(tmp_path / "line")
    assert json.loads((tmp_path / "line" / DEPLOYMENT).read_text())["git"] == "./.retain/git"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[" * 100_000, "nested more than"),
        ("[1]", "names and places"),
        ('{"git": 1}', "names and places"),
        ('{"git": null}', "names and places"),
        ('{"git": "x", "store": "x", "work": "", "landing": "", "more": "x"}', "an unknown key 'more'"),
        ('{"git": "x", "store": "x", "work": ""}', "no 'landing'"),
        ('{"git": "", "store": "x", "work": "", "landing": ""}', "no 'git'"),
        ('{"git": "\\ud800", "store": "x", "work": "", "landing": ""}', "half a character"),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / ".retain").mkdir()
    (tmp_path / DEPLOYMENT).write_text(content)
    with pytest.raises(UsageError, match=words) as caught:
        resolve(str(tmp_path))
    assert str(tmp_path / DEPLOYMENT) in str(caught.value)
