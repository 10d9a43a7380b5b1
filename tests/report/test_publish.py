"""`retain report --to`: where pages go, in which order, and what is left of earlier ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from cl_steps.commands import report as command
from cl_steps.commands.report import report
from cl_steps.errors import Unavailable, UsageError
from cl_steps.report.overview import Overview
from cl_steps.report.pages import PAGE, folder_of, known, opened, publish, read_page
from cl_steps.repository.line import Line
from tests.report.fabricate import RUNS

NAMES = {PAGE, *(f"evidently-{run}.html" for run in RUNS)}
OLD = "evidently-2020-01-01-abcd.html"


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[str]:
    """An object store's prefix."""
    yield f"memory://{tmp_path.name}/pages"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def git_url(line: Line, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The line by its Git URL; its store comes from the environment, as in a pod."""
    monkeypatch.setenv("RETAIN_STORE_URL", line.store)
    monkeypatch.chdir(tmp_path)
    return f"file://{line.git}"


@pytest.fixture
def told(overview: Overview, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line's overview is known already: to tell it takes seconds."""
    monkeypatch.setattr("cl_steps.operations.page.collect", lambda *_, **__: overview)


def kept(place: str) -> set[str]:
    return {path.rsplit("/", 1)[-1] for path in fsspec.filesystem("memory").ls(place, detail=False)}


def test_a_git_url_is_reported_into_a_bucket(git_url: str, bucket: str, tmp_path: Path) -> None:
    assert report(git_url, open=False, to=bucket) == f"the line's page: {bucket}/night.html"
    assert kept(bucket) == NAMES
    page = read_page(bucket, PAGE)
    assert page is not None
    linked = set(re.findall(r'href="(evidently[^"]+)"', page.decode()))
    assert linked == NAMES - {PAGE}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("told")
def test_a_git_url_is_reported_into_a_folder(git_url: str, tmp_path: Path) -> None:
    assert report(git_url, open=False, to=str(tmp_path / "a" / "b")) == f"the line's page: {tmp_path}/a/b/night.html"
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == NAMES
    report(git_url, open=False, to=f"file://{tmp_path}/with%20space")
    assert {path.name for path in (tmp_path / "with space").iterdir()} == NAMES


@pytest.mark.usefixtures("told")
def test_without_a_place_it_is_reports(line: Line, git_url: str, tmp_path: Path) -> None:
    report(git_url, open=False)
    assert {path.name for path in (tmp_path / "reports").iterdir()} == NAMES
    # A bare repository is not a folder to write into.
    report(line.git, open=False)
    assert not (Path(line.git) / "reports").exists()
    workspace = tmp_path / "own"
    line.save(workspace)
    report(str(workspace), open=False)
    assert {path.name for path in (workspace / "reports").iterdir()} == NAMES


@pytest.mark.usefixtures("told")
def test_only_a_folder_can_be_opened(git_url: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(command.webbrowser, "open", opened.append)
    with pytest.raises(UsageError, match="leave one of --open and --to out"):
        report(git_url, open=True, to=bucket)
    report(git_url, open=True)
    assert opened == [(Path.cwd() / "reports" / PAGE).as_uri()]


def test_the_page_comes_last_and_goes_first(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    publish(opened(bucket), b"one", {OLD: b"old"})
    done: list[str] = []
    write, remove = MemoryFileSystem.pipe_file, MemoryFileSystem.rm_file

    def noted_write(self: Any, path: str, *rest: Any, **options: Any) -> None:
        done.append(path.rsplit("/", 1)[-1])
        write(self, path, *rest, **options)

    def noted_remove(self: Any, path: str) -> None:
        done.append("-" + path.rsplit("/", 1)[-1])
        remove(self, path)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", noted_write)
    monkeypatch.setattr(MemoryFileSystem, "rm_file", noted_remove)
    publish(opened(bucket), b"two", {"evidently-2026-01-01-abcd.html": b"new"})
    assert done == ["evidently-2026-01-01-abcd.html", PAGE, f"-{OLD}"]


@pytest.mark.parametrize("kind", ["bucket", "folder"])
def test_only_reports_of_ours_are_removed(kind: str, bucket: str, tmp_path: Path) -> None:
    place = bucket if kind == "bucket" else str(tmp_path / "pages")
    files = fsspec.filesystem("memory" if kind == "bucket" else "file")
    publish(opened(place), b"one", {OLD: b"old"})
    files.pipe_file(f"{place}/gate.json", b"{}")
    files.pipe_file(f"{place}/evidently.html", b"mine")
    publish(opened(place), b"two", {})
    names = {path.rsplit("/", 1)[-1] for path in files.ls(place, detail=False)}
    assert names == {PAGE, "gate.json", "evidently.html"}
    assert read_page(place, PAGE) == b"two"
    assert read_page(place, OLD) is None


@pytest.mark.usefixtures("told")
def test_a_place_that_cannot_be_written_is_said_so(git_url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match=r"cannot be written: .*exists: .*/file"):
        report(git_url, open=False, to=str(tmp_path / "file"))
    with pytest.raises(UsageError, match="nowhere"):
        report(git_url, open=False, to="nowhere://b/pages")


@pytest.mark.parametrize(
    "name", ["", "night.html/", "../night.html", "evidently-a/b.html", "evidently-A.html\n", "x.html"]
)
def test_other_names_are_none_of_ours(name: str, tmp_path: Path) -> None:
    assert not known(name)
    with pytest.raises(AssertionError):
        read_page(str(tmp_path), name)


def test_a_place_is_a_folder_or_a_url() -> None:
    assert folder_of("/a/b") == Path("/a/b")
    assert folder_of("file:///a/b%20c") == Path("/a/b c")
    assert folder_of("s3://b/a") is None
