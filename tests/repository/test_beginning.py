"""How a run began: what its first commit may say, and what a step may change of its branch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cl_steps.config import RunSpec
from cl_steps.errors import IntegrityError, RetainError, Unavailable, UsageError
from cl_steps.repository.beginning import beginning, compare_with_beginning
from cl_steps.repository.git import clone, git, text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Change, reading
from cl_steps.repository.run_branch import branch_of, open_run
from tests.promoting import forge

BEGUN = "refs/heads/begun/r-1"


@pytest.fixture
def line(line: Line) -> Line:
    """With a run that began."""
    open_run(line, RunSpec(id="r-1", set={"update.steps": 7}))
    return line


def begin_with(line: Line, files: dict[str, bytes | None]) -> None:
    """As whoever may open runs could: the first commit says something else."""
    place = Path(line.git)
    base = text(place, "rev-parse", f"{BEGUN}^")
    forge(line, "r-1", files, ref=BEGUN)
    tree = text(place, "rev-parse", f"{BEGUN}^{{tree}}")
    git(place, "update-ref", BEGUN, text(place, "commit-tree", tree, "-p", base, "-m", "begin"))


def settings(line: Line, **said: Any) -> bytes:
    """The run's own settings, which say something else."""
    own = yaml.safe_load(git(Path(line.git), "cat-file", "blob", f"{BEGUN}:run.yaml"))
    return yaml.safe_dump({**own, **said}).encode()


def test_a_run_began_with_the_main_of_then_whatever_came_since(line: Line) -> None:
    with reading(line.git) as main:
        then = main.tip
        assert beginning(main, "r-1").base == then
        main.swap(lambda: Change({"params.yaml": b"{}"}, "the owner's own\n"))
        found = beginning(main, "r-1")
    assert (found.base, found.spec.id, found.spec.set) == (then, "r-1", {"update.steps": 7})
    assert found.commit == text(Path(line.git), "rev-parse", BEGUN)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ({"set": {"gate.min_gain": 0}}, UsageError, "cannot be set for one run"),
        ({"id": "r-2"}, IntegrityError, "says of its beginning is not so"),
        ({"base": "1" * 40}, IntegrityError, "says of its beginning is not so"),
        ({"state": "1" * 40}, IntegrityError, "says of its beginning is not so"),
        ({"rebase": f"{'1' * 32}.dir"}, UsageError, "no act of a person"),
    ],
)
def test_what_a_run_says_of_itself_is_so(line: Line, said: dict[str, Any], kind: type[RetainError], words: str) -> None:
    begin_with(line, {"run.yaml": settings(line, **said)})
    with reading(line.git) as main, pytest.raises(kind, match=words):
        beginning(main, "r-1")


@pytest.mark.parametrize("content", [None, b"", b"["])
def test_settings_that_are_none_are_one_sentence(line: Line, content: bytes | None) -> None:
    begin_with(line, {"run.yaml": content})
    with reading(line.git) as main, pytest.raises(RetainError):
        beginning(main, "r-1")


def test_a_beginning_has_one_parent(line: Line) -> None:
    place = Path(line.git)
    tree, base = text(place, "rev-parse", f"{BEGUN}^{{tree}}"), text(place, "rev-parse", "main")
    other = text(place, "commit-tree", tree, "-m", "of nothing")
    for parents in ([], [base, other]):
        words = [word for parent in parents for word in ("-p", parent)]
        git(place, "update-ref", BEGUN, text(place, "commit-tree", tree, *words, "-m", "begin"))
        with reading(line.git) as main, pytest.raises(IntegrityError, match="did not begin with a commit of main"):
            beginning(main, "r-1")


@pytest.mark.parametrize(
    ("path", "is_of_steps"),
    [
        ("dvc.lock", True), ("reports/gate.json", True), ("reports/deep/x", True), ("dvc.lock.d/x", False),
        ("Reports/gate.json", False), ("x/reports/gate.json", False), ("params.yaml", False), ("é", False),
    ],
)  # fmt: skip
def test_a_step_writes_its_lock_and_reports_alone(line: Line, tmp_path: Path, path: str, is_of_steps: bool) -> None:
    forge(line, "r-1", {path: b"x"})
    clone(line.git, tmp_path / "clone", branch_of("r-1"))
    if is_of_steps:
        compare_with_beginning(tmp_path / "clone", "r-1")
    else:
        with pytest.raises(IntegrityError, match=f"changes '{path}'"):
            compare_with_beginning(tmp_path / "clone", "r-1")


def test_a_beginning_that_is_there_and_cannot_be_fetched_is_asked_for_again(line: Line) -> None:
    commit = text(Path(line.git), "rev-parse", BEGUN)
    with reading(line.git) as main:
        (Path(line.git) / "objects" / commit[:2] / commit[2:]).unlink()
        with pytest.raises(Unavailable, match="cannot be read"):
            beginning(main, "r-1")
        with pytest.raises(IntegrityError, match="nothing says how run r-2 began"):
            beginning(main, "r-2")
