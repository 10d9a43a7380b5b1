"""The place `work`: the same for a folder, an object store in memory and a real S3 server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from cl_steps.errors import Unavailable, UsageError
from cl_steps.store.places import Place, open_place, open_work
from tests.buckets import KEYS, s3_server


@pytest.fixture
def s3() -> Iterator[str]:
    """The URL of a bucket on an S3 server of our own."""
    with s3_server():
        yield "s3://bucket/work/line"


@pytest.fixture(params=["folder", "memory", "s3"])
def work(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return str(request.getfixturevalue("s3"))
    fsspec.filesystem("memory").store.clear()
    return str(tmp_path / "work") if request.param == "folder" else "memory://bucket/work/"


def test_names_stand_for_what_was_last_written(work: str) -> None:
    kept: Place = open_work(work, "checkpoints", "k")
    assert kept.names() == []
    with pytest.raises(FileNotFoundError):
        kept.read("a.json")
    kept.write("b.json", b"1")
    kept.write("a.json", b"")
    kept.write("b.json", b"22")
    other = open_work(work, "checkpoints", "k")
    assert other.names() == ["a.json", "b.json"]
    assert (other.read("a.json"), other.read("b.json")) == (b"", b"22")
    assert open_work(work, "checkpoints", "kk").names() == []
    other.delete("a.json")
    other.delete("a.json")
    assert kept.names() == ["b.json"]
    kept.remove()
    assert other.names() == []
    kept.remove()


def test_a_place_is_emptied_however_deep_and_its_neighbour_stays(work: str, tmp_path: Path) -> None:
    kept, other = open_work(work, "a"), open_work(work, "ab")
    (tmp_path / "file").write_bytes(b"content")
    for name in ("x", "one/y", "one/two/z", "three/z"):
        kept.put(tmp_path / "file", name)
    other.write("x", b"stays")
    assert (kept.names(), kept.folders()) == (["x"], ["one", "three"])
    assert kept.sizes("one") == {"one/y": 7, "one/two/z": 7}
    kept.get("one/y", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content"
    with pytest.raises(FileNotFoundError):
        kept.get("one/none", tmp_path / "back")
    kept.remove("one")
    kept.remove("one")
    assert kept.folders() == ["three"]
    kept.remove()
    assert (kept.names(), kept.folders(), kept.sizes("one")) == ([], [], {})
    assert other.read("x") == b"stays"


def test_a_server_that_is_away_is_unavailable_and_not_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    kept = open_work("s3://bucket/away", "k")
    for touch in (kept.names, lambda: kept.read("a"), lambda: kept.write("a", b""), lambda: kept.delete("a")):
        with pytest.raises(Unavailable, match="RETAIN_WORK"):
            touch()


def test_a_folder_that_cannot_be_a_folder_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Unavailable, match="RETAIN_WORK"):
        open_work(tmp_path / "file", "k").write("a", b"")


def test_a_url_that_nothing_opens_is_refused() -> None:
    with pytest.raises(UsageError, match="nosuch:// URL"):
        open_work("nosuch://bucket/x")


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_folder_shows_what_was_there_until_all_is_on_the_disk(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = open_place(f"{scheme}{tmp_path}", "a", "b")
    kept.write("c/name", b"before")
    (tmp_path / "after").write_bytes(b"after")

    def killed(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", killed)
        for change in (lambda: kept.write("c/name", b"after"), lambda: kept.put(tmp_path / "after", "c/name")):
            with pytest.raises(KeyboardInterrupt):
                change()
            assert kept.read("c/name") == b"before"
    kept.put(tmp_path / "after", "c/name")
    assert kept.sizes("c") == {"c/name": 5}
    assert (kept.names(), kept.folders()) == ([], ["c"])
    assert [path.name for path in (tmp_path / "a/b/c").iterdir()] == ["name"], "the draft was taken up"


def test_what_the_scheduler_imports_brings_no_fsspec() -> None:
    code = "import sys, cl_steps.repository.line, cl_steps.store.places; sys.exit('fsspec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
