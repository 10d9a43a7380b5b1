"""Pruning in an order that a kill, a late promotion and a night cannot break."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cl_steps.steps.promote
from cl_steps.errors import UsageError
from cl_steps.operations import prune as command
from cl_steps.report.collect import collect
from cl_steps.repository.git import git, text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from cl_steps.repository.run_branch import read_run
from cl_steps.steps import close, promote
from cl_steps.store import objects
from cl_steps.store.objects import Store
from tests.lines.cheap import put_run
from tests.lines.small import GOOD
from tests.operations.pruning import OLD, branches, holds, line_that_lived, make_old, run_prune, whole


@pytest.fixture(autouse=True)
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake figures give no verdict of their own: take the stored one."""
    monkeypatch.setattr(cl_steps.steps.promote, "_check_figures", lambda root, params, verdict, run: None)


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return line_that_lived(tmp_path / "line")


@pytest.mark.parametrize("part", ["put_away", "_record", "_delete_branches", "_free"])
def test_killed_between_two_parts_the_same_command_goes_on(
    line: Line, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    real: Callable[..., Any] = getattr(command, part)

    def killed(*arguments: Any) -> None:
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, part, killed)
        with pytest.raises(KeyboardInterrupt):
            run_prune(line)
    assert whole(line)
    run_prune(line)
    assert branches(line) == {"good", "waiting", "under-way"}
    assert not holds(line, "tonight/candidate/adapter rejected")
    assert whole(line)
    again = run_prune(line)
    assert (again["runs"], again["objects"]) == ([], 0)
    with reading(line.git) as main:
        assert set(main.ledger().pruned) == OLD
    log = text(Path(line.git), "log", "--format=%s", "archive").splitlines()
    assert log == ["archive 5 runs", "begin the archive of runs"], "nothing is archived twice"


def test_killed_while_objects_go_the_next_command_takes_the_rest(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[str] = []

    def remove(opened: Any, name: str) -> None:
        if len(gone) == 3:
            raise KeyboardInterrupt
        gone.append(name)
        opened._odb.fs.remove(opened._odb.oid_to_path(name))

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_remove", remove)
        patch.setattr(objects, "AT_ONCE", 1)
        with pytest.raises(KeyboardInterrupt):
            run_prune(line)
    assert all(name.endswith(".dir") for name in gone), "lists of files go first: DVC trusts one that is there"
    assert run_prune(line)["objects"] > 0
    assert not holds(line, "tonight/candidate/adapter rejected")
    assert whole(line)


def test_a_run_taken_up_again_meanwhile_stays(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    real, remote = command.put_away, Path(line.git)

    def taken_up(*arguments: Any) -> None:
        real(*arguments)
        tip = read_run(line, "failed").tip
        commit = text(remote, "commit-tree", f"{tip}^{{tree}}", "-p", tip, "-m", "drift: done")
        git(remote, "update-ref", "refs/heads/runs/failed", commit)

    monkeypatch.setattr(command, "put_away", taken_up)
    assert set(run_prune(line)["runs"]) == OLD - {"failed"}
    assert "failed" in branches(line)
    assert {night.run for night in collect(line).nights} >= OLD
    with reading(line.git) as main:
        assert main.ledger().pruned["failed"] != read_run(line, "failed").tip


def test_a_promotion_that_lands_while_its_run_is_pruned_wins(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose promotion failed for want of a remote is `failed` and ready: nothing moves its branch any more."""
    put_run(line, "ready", GOOD)
    assert close.run(line, "ready") == "failed"
    real, promoted = command.put_away, []

    def meanwhile(*arguments: Any) -> None:
        real(*arguments)
        promoted.append(promote.run(line, "ready"))

    monkeypatch.setattr(command, "put_away", meanwhile)
    assert "ready" not in run_prune(line)["runs"]
    assert promoted == ["v3"]
    assert "ready" in branches(line)
    assert whole(line)


def test_a_promotion_that_comes_too_late_is_refused(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had read the branch and checked every object before the run was pruned."""
    put_run(line, "ready", GOOD)
    assert close.run(line, "ready") == "failed"
    make_old(line)
    with monkeypatch.context() as patch:
        patch.setattr(promote, "_check", lambda *_: run_prune(line))
        with pytest.raises(UsageError, match="was pruned: trigger a new run"):
            promote.run(line, "ready")
    assert "ready" not in branches(line)
    assert whole(line)
    put_run(line, "ready", GOOD, reason="the same run, from its beginning")
    assert promote.run(line, "ready") == "v3"


def test_a_run_that_began_meanwhile_keeps_its_objects(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its branch names old bytes that nothing else needs: the second look finds it."""
    tip, real, looks = read_run(line, "rejected").tip, command.current_refs, []

    def late(url: str) -> dict[str, str]:
        looks.append(url)
        if len(looks) == 2:  # the one before objects are deleted
            git(Path(line.git), "update-ref", "refs/heads/runs/late", tip)
        return real(url)

    monkeypatch.setattr(command, "current_refs", late)
    run_prune(line)
    assert holds(line, "tonight/candidate/adapter rejected")
    assert not holds(line, "tonight/candidate/adapter stale")


def test_what_a_killed_upload_left_goes(line: Line) -> None:
    run_prune(line)
    drafts = [Path(line.store) / "files" / "md5" / "ab" / f".{name}.tmp" for name in ("old", "new")]
    drafts[0].parent.mkdir(exist_ok=True)
    for draft in drafts:
        draft.write_bytes(b"half of it")
    make_old(line)
    os.utime(drafts[1])
    done = run_prune(line)
    assert (done["objects"], done["bytes"], done["young_objects"]) == (1, 10, 1)
    assert [draft.exists() for draft in drafts] == [False, True]
