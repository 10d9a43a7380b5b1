"""Compare-and-swap on main: one winner, nothing lost, tags never moved."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cl_steps.errors import IntegrityError, Unavailable
from cl_steps.repository.git import clone, git, text
from cl_steps.repository.mainline import Change, Mainline, reading


@pytest.fixture
def remote(tmp_path: Path) -> str:
    source, bare = tmp_path / "source", tmp_path / "remote.git"
    git(None, "init", "-q", "-b", "main", str(source))
    (source / "a").write_text("1")
    git(source, "add", "a")
    git(source, "commit", "-q", "-m", "begin")
    git(None, "clone", "-q", "--bare", str(source), str(bare))
    return str(bare)


def add(remote: str, name: str) -> None:
    with reading(remote) as main:
        main.swap(lambda: Change({f"n/{name}": name.encode()}, f"add {name}"))


def test_racing_changes_all_land(remote: str) -> None:
    names = [f"n{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: add(remote, name), names))
    with reading(remote) as main:
        assert main.folder_files("n") == {name: name.encode() for name in names}
    assert text(Path(remote), "rev-list", "--count", "main") == "9"


def test_only_one_of_two_on_the_same_tip(remote: str) -> None:
    with reading(remote) as one, reading(remote) as two:
        assert one.push(Change({"b": b"1"}, "one", tag="model@v0.0.2"))
        assert not two.push(Change({"b": b"2"}, "two", tag="model@v0.0.2"))
    with reading(remote) as main:
        assert main.read("b") == b"1"
        assert main.read("a") == b"1"


def test_a_tag_that_exists_is_never_moved(remote: str) -> None:
    git(Path(remote), "tag", "model@v0.0.2")
    before = text(Path(remote), "rev-parse", "main", "model@v0.0.2")
    with reading(remote) as main:
        assert not main.push(Change({"b": b"1"}, "one", tag="model@v0.0.2"))
    assert text(Path(remote), "rev-parse", "main", "model@v0.0.2") == before


def test_a_change_can_remove(remote: str) -> None:
    with reading(remote) as main:
        assert main.push(Change({"a": None, "b/c": b"x"}, "swap"))
        assert main.read("a") is None
        assert main.tree("b") != ""


def test_equal_folders_have_equal_trees(remote: str) -> None:
    with reading(remote) as main:
        main.push(Change({"x/f": b"1", "y/f": b"1", "z/f": b"2"}, "three"))
        assert main.tree("x") == main.tree("y") != main.tree("z")
        assert main.tree("none") == ""


def test_hostile_names_and_contents_stay_bytes(remote: str) -> None:
    content = b"$(touch owned)\n{{ 7*7 }}\nRun-Id: forged\n"
    with reading(remote) as main:
        main.push(Change({"events/e.json": content}, "event"))
        assert main.folder_files("events") == {"e.json": content}


def test_a_remote_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be read"):
        Mainline.open(str(tmp_path / "none"), tmp_path)


def test_a_tracked_symbolic_link_is_refused(remote: str, tmp_path: Path) -> None:
    with reading(remote) as main:
        blob = git(main.folder, "hash-object", "-w", "--stdin", stdin=b"/etc/passwd").decode().strip()
        index = {"GIT_INDEX_FILE": str(main.folder / "i")}
        git(main.folder, "update-index", "--index-info", stdin=f"120000 {blob}\tlanding\n".encode(), env=index)
        tree = git(main.folder, "write-tree", env=index).decode().strip()
        commit = text(main.folder, "commit-tree", tree, "-p", main.tip, "-m", "link")
        git(main.folder, "push", "-q", remote, f"{commit}:refs/heads/main")
    with pytest.raises(IntegrityError, match="symbolic link"):
        clone(remote, tmp_path / "clone", "main")
