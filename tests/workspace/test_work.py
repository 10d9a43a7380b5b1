"""The place `work`: the same for a folder, an object store in memory and a real S3 server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from cl_steps.errors import Unavailable, UsageError
from cl_steps.store.work import Bucket, Folder, Place, place
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
    kept: Place = place(work, "checkpoints", "k")
    assert kept.names() == []
    with pytest.raises(FileNotFoundError):
        kept.read("a.json")
    kept.write("b.json", b"1")
    kept.write("a.json", b"")
    kept.write("b.json", b"22")
    other = place(work, "checkpoints", "k")
    assert other.names() == ["a.json", "b.json"]
    assert (other.read("a.json"), other.read("b.json")) == (b"", b"22")
    assert place(work, "checkpoints", "kk").names() == []
    other.delete("a.json")
    other.delete("a.json")
    assert kept.names() == ["b.json"]
    kept.remove()
    assert other.names() == []
    kept.remove()


def test_a_server_that_is_away_is_unavailable_and_not_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    kept = place("s3://bucket/away", "k")
    for touch in (kept.names, lambda: kept.read("a"), lambda: kept.write("a", b""), lambda: kept.delete("a")):
        with pytest.raises(Unavailable, match="RETAIN_WORK"):
            touch()


def test_a_folder_that_cannot_be_a_folder_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Unavailable, match="RETAIN_WORK"):
        place(tmp_path / "file", "k").write("a", b"")


def test_a_url_that_nothing_opens_is_refused() -> None:
    with pytest.raises(UsageError, match="nosuch:// URL"):
        place("nosuch://bucket/x")


def test_a_path_is_a_folder_and_a_url_is_not(tmp_path: Path) -> None:
    assert isinstance(place(tmp_path, "k"), Folder)
    assert isinstance(place(f"file://{tmp_path}", "k"), Bucket)


def test_what_the_scheduler_imports_brings_no_fsspec() -> None:
    code = "import sys, cl_steps.repository.line, cl_steps.store.work; sys.exit('fsspec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
