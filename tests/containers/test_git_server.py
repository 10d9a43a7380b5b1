"""The Git server's hook: each role does its part of a night, and nothing beyond it, with real pushes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cl_steps.commands.prune import prune
from cl_steps.commands.rights import rights
from cl_steps.config import RunSpec
from cl_steps.errors import IntegrityError
from cl_steps.pipeline import STAGES
from cl_steps.repository.bundle import mirror_workspace, send_all
from cl_steps.repository.git import git, remote_refs, text
from cl_steps.repository.line import Line
from cl_steps.repository.run_branch import open_run
from cl_steps.run.stage import run_stage
from cl_steps.steps import close, promote
from cl_steps.verify.judging import Judging
from tests.lines.small import GOOD
from tests.promoting import SAME, forge, ready, stage

HOOK = Path(__file__).parents[2] / "containers/git/pre-receive"
ROLE = "RETAIN_GIT_ROLE"
ROLES = ("step", "judge", "opener", "trusted")
As = Callable[[str], None]


@pytest.fixture
def line(tmp_path: Path) -> Line:
    line = ready(tmp_path / "line")
    install(Path(line.git))
    return line


def install(server: Path) -> None:
    (server / "hooks").mkdir()
    shutil.copy(HOOK, server / "hooks/pre-receive")


@pytest.fixture
def as_role(monkeypatch: pytest.MonkeyPatch) -> As:
    return lambda role: monkeypatch.setenv(ROLE, role)


@pytest.fixture
def pushed(line: Line, tmp_path: Path) -> Path:
    """A clone to push from."""
    git(None, "clone", "-q", line.git, str(tmp_path / "clone"))
    return tmp_path / "clone"


def push(clone: Path, role: str, *refs: str, **env: str) -> str:
    """What the server says of a push; nothing where it took it."""
    said = {name: value for name, value in os.environ.items() if name not in (ROLE, "REMOTE_USER", "GL_USER")}
    said |= {**({ROLE: role} if role else {}), **env}
    done = subprocess.run(["git", "-C", clone, "push", "-q", "--force", "origin", *refs], env=said, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.stderr if done.returncode else ""


def commit(clone: Path, parent: str, files: dict[str, str | None], mode: str = "100644") -> str:
    """A commit on top of another, with files changed."""
    index = {"GIT_INDEX_FILE": str(clone / ".git/other")}
    git(clone, "read-tree", parent, env=index)
    for path, content in files.items():
        if content is None:
            row = f"0 {'0' * 40}\t{path}"
        else:
            blob = git(clone, "hash-object", "-w", "--stdin", stdin=content.encode()).decode().strip()
            row = f"{mode} {blob}\t{path}"
        git(clone, "update-index", "--index-info", stdin=f"{row}\n".encode(), env=index)
    tree = git(clone, "write-tree", env=index).decode().strip()
    return text(clone, "commit-tree", tree, "-p", parent, "-m", "a commit")


def test_a_night_in_which_everybody_has_the_least_that_they_need(line: Line, as_role: As) -> None:
    as_role("opener")
    open_run(line, RunSpec(id="r-2"))
    for step in STAGES:
        as_role(step.role)
        run_stage(line, "r-2", step, stage(step, GOOD[step.name], SAME), Judging(line))
    as_role("trusted")
    assert promote.run(line, "r-2") == "v2"
    assert close.run(line, "r-2") == "promoted"
    assert close.run(line, "r-1") == "stale"
    assert prune(str(Path(line.git).parents[1]), 0, False, json=True)["runs"] == ["r-1"]  # type: ignore[index]
    assert set(remote_refs(line.git, "refs/heads/*")) == {
        f"refs/heads/{name}" for name in ("main", "archive", "runs/r-2", "begun/r-2")
    }


FORBIDDEN = (
    *("forward:refs/heads/main", "forward:refs/heads/archive", "forward:refs/heads/other", "forward:refs/notes/x"),
    *("forward:refs/heads/runs/r-9", "forward:refs/heads/begun/r-9", "forward:refs/heads/begun/r-1"),
    *("forward:refs/tags/model@v0.0.9", "back:refs/heads/runs/r-1", ":refs/heads/runs/r-1", ":refs/heads/begun/r-1"),
    *(":refs/heads/main", ":refs/tags/model@v0.0.1"),
)


@pytest.mark.parametrize("role", ["step", "judge"])
@pytest.mark.parametrize("refs", FORBIDDEN)
def test_what_a_step_may_not_push(line: Line, pushed: Path, role: str, refs: str) -> None:
    git(pushed, "branch", "forward", commit(pushed, "origin/main", {"state/base.dvc": "x"}))
    git(pushed, "branch", "back", commit(pushed, "origin/begun/r-1", {"reports/gate.json": "{}"}))
    before = remote_refs(line.git)
    assert "retain: " in push(pushed, role, refs)
    assert remote_refs(line.git) == before


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("params.yaml", "100644"), ("checks/test_x.py", "100644"), ("dvc.yaml", "100644"), ("run.yaml", "100644"),
        ("state/base.dvc", "100644"), (".gitattributes", "100644"), ("reports/deep/x.json", "100644"),
        ("dvc.lock.x", "100644"), ("xdvc.lock", "100644"), ("reports/gate.json", "120000"),
        ("reports/gate.json", "100755"), ("reports/a\tb", "100644"), ("Reports/x", "100644"), ("reports/ü", "100644"),
    ],
)  # fmt: skip
def test_a_step_writes_nothing_but_its_reports_and_the_lock(line: Line, pushed: Path, path: str, mode: str) -> None:
    before = remote_refs(line.git)
    made = commit(pushed, "origin/runs/r-1", {path: "x"}, mode)
    assert "retain: refs/heads/runs/r-1 may not" in push(pushed, "step", f"{made}:refs/heads/runs/r-1")
    # Nor in two steps, the first of which is honest.
    honest = commit(pushed, "origin/runs/r-1", {"reports/x.json": "x"})
    assert push(pushed, "step", f"{honest}:refs/heads/runs/r-1") == ""
    later = commit(pushed, honest, {path: "x"}, mode)
    assert "retain: refs/heads/runs/r-1 may not" in push(pushed, "step", f"{later}:refs/heads/runs/r-1")
    assert remote_refs(line.git, "refs/heads/main") == {"refs/heads/main": before["refs/heads/main"]}


def test_one_forbidden_ref_stops_the_whole_push(line: Line, pushed: Path) -> None:
    before = remote_refs(line.git)
    honest = commit(pushed, "origin/runs/r-1", {"reports/x.json": "x"})
    said = push(pushed, "step", f"{honest}:refs/heads/runs/r-1", f"{honest}:refs/heads/main")
    assert "the role step does not write refs/heads/main" in said
    assert remote_refs(line.git) == before


@pytest.mark.parametrize("what", ["elsewhere", "two commits", "another file", "no commit of main", "moved", "deleted"])
def test_what_an_opener_may_not_push(line: Line, pushed: Path, what: str) -> None:
    before = remote_refs(line.git)
    begun = commit(pushed, "origin/main", {"run.yaml": "id: r-9"})
    both = ("refs/heads/begun/r-9", "refs/heads/runs/r-9")
    if what == "elsewhere":
        other = commit(pushed, begun, {"reports/gate.json": "{}"})
        refs = (f"{begun}:{both[0]}", f"{other}:{both[1]}")
    elif what == "two commits":
        begun = commit(pushed, begun, {"run.yaml": "id: r-10"})
        refs = tuple(f"{begun}:{ref}" for ref in both)
    elif what == "another file":
        begun = commit(pushed, "origin/main", {"run.yaml": "id: r-9", "params.yaml": "x"})
        refs = tuple(f"{begun}:{ref}" for ref in both)
    elif what == "no commit of main":
        begun = commit(pushed, "origin/runs/r-1", {"run.yaml": "id: r-9"})
        refs = tuple(f"{begun}:{ref}" for ref in both)
    elif what == "moved":
        refs = (f"{commit(pushed, 'origin/runs/r-1', {'reports/x.json': 'x'})}:refs/heads/runs/r-1",)
    else:
        refs = (":refs/heads/runs/r-1",)
    assert "retain: " in push(pushed, "opener", *refs)
    assert "retain: " in push(pushed, "opener", f"{begun}:refs/heads/main")
    assert remote_refs(line.git) == before


def test_an_opener_begins_a_run_and_nobody_moves_its_beginning(line: Line, pushed: Path) -> None:
    begun = commit(pushed, "origin/main", {"run.yaml": "id: r-9"})
    assert push(pushed, "opener", f"{begun}:refs/heads/begun/r-9", f"{begun}:refs/heads/runs/r-9") == ""
    other = commit(pushed, "origin/main", {"run.yaml": "id: r-9\nset: {}"})
    for role in ROLES:
        assert "retain: " in push(pushed, role, f"{other}:refs/heads/begun/r-9")


@pytest.mark.parametrize("role", ROLES)
def test_nobody_moves_main_or_a_tag_back(line: Line, pushed: Path, role: str, as_role: As) -> None:
    as_role("trusted")
    old = text(pushed, "rev-parse", "origin/main")
    promote.run(line, "r-1")
    before = remote_refs(line.git)
    git(pushed, "fetch", "-q", "--tags", "origin")
    for refs in (
        f"{old}:refs/heads/main",
        ":refs/heads/main",
        f"{old}:refs/tags/model@v0.0.2",
        ":refs/tags/model@v0.0.1",
    ):
        assert "retain: " in push(pushed, role, refs)
    assert remote_refs(line.git) == before


@pytest.mark.parametrize("name", ["..", "-x", "a", "A-run", "a.lock/b", "r_1", "r-1/deeper"])
def test_a_run_has_the_name_of_a_run(line: Line, pushed: Path, name: str) -> None:
    begun = commit(pushed, "origin/main", {"run.yaml": "id: r-9"})
    before = remote_refs(line.git)
    assert push(pushed, "opener", f"{begun}:refs/heads/begun/{name}", f"{begun}:refs/heads/runs/{name}") != ""
    assert remote_refs(line.git) == before


@pytest.mark.parametrize("variable", ["REMOTE_USER", "GL_USER"])
def test_the_servers_own_list_says_who_is_who(line: Line, pushed: Path, variable: str) -> None:
    place = Path(line.git)
    for role, users in {"step": ["a-step", "both"], "trusted": ["ann", "both"]}.items():
        for user in users:
            git(place, "config", "--add", f"retain.{role}", user)
    made = commit(pushed, "origin/main", {"checks/test_x.py": "x"})
    main = f"{made}:refs/heads/main"
    assert "nobody says which role" in push(pushed, "", main)
    assert "nobody says which role bob has" in push(pushed, "", main, **{variable: "bob"})
    assert "nobody says" in push(pushed, "", main, **{variable: "an"}), "a part of a name is no name"
    assert "nobody says" in push(pushed, "", main, **{variable: "a.n"}), "nor is a pattern"
    assert "the role step does not write" in push(pushed, "", main, **{variable: "a-step"})
    assert "the role step does not write" in push(pushed, "", main, **{variable: "both"}), (
        "the least of two roles counts"
    )
    assert "there is no role root" in push(pushed, "root", main)
    assert push(pushed, "", main, **{variable: "ann"}) == ""


def test_a_line_is_published_and_restored_by_who_is_trusted(line: Line, tmp_path: Path, as_role: As) -> None:
    refs = mirror_workspace(line.git, tmp_path / "mirror.git")
    empty = tmp_path / "empty.git"
    git(None, "init", "-q", "--bare", "-b", "main", str(empty))
    install(empty)
    as_role("trusted")
    assert send_all(tmp_path / "mirror.git", refs, str(empty)) == refs


def test_a_forged_branch_does_not_even_reach_the_server(line: Line, as_role: As) -> None:
    as_role("step")
    with pytest.raises(Exception, match="may not change params"):
        forge(line, "r-1", {"params.yaml": b"{}"})


def test_rights_are_tried_and_said(line: Line, as_role: As) -> None:
    before, folder = remote_refs(line.git), str(Path(line.git).parents[1])
    for role in ("step", "opener"):
        as_role(role)
        assert "writes nothing that it must not" in rights(folder, role)
    assert remote_refs(line.git) == before
    as_role("opener")
    with pytest.raises(IntegrityError, match="takes refs/heads/begun/probe-of-rights"):
        rights(folder, "step")


def test_a_server_that_protects_nothing_is_seen_and_left_as_it_was(line: Line) -> None:
    (Path(line.git) / "hooks/pre-receive").unlink()
    before, folder = remote_refs(line.git), str(Path(line.git).parents[1])
    with pytest.raises(IntegrityError, match=r"main, refs/tags/.*begun/.*runs/.*moved back"):
        rights(folder, "step")
    left = remote_refs(line.git)
    assert {ref: commit for ref, commit in left.items() if ref not in ("HEAD", "refs/heads/main")} == {
        ref: commit for ref, commit in before.items() if ref not in ("HEAD", "refs/heads/main")
    }
    assert text(Path(line.git), "log", "-1", "--format=%P", "main") == before["refs/heads/main"]
    assert text(Path(line.git), "rev-parse", "main^{tree}") == text(Path(line.git), "rev-parse", "main~1^{tree}")


def test_a_trusted_credential_in_a_steps_place_is_seen(line: Line, as_role: As) -> None:
    as_role("trusted")
    with pytest.raises(IntegrityError, match="takes refs/heads/main, refs/tags/"):
        rights(str(Path(line.git).parents[1]), "step")
