"""Git as we call it: nothing that a repository names runs, and its reasons are told whole."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cl_steps.errors import Unavailable, UsageError
from cl_steps.repository.bundle import mirror_workspace
from cl_steps.repository.checkout import refuse_dirty, sync
from cl_steps.repository.git import GitError, clone, git, reason, refusal, remote_refs, text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Change, reading

PROGRAMS = (
    "core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.askPass", "core.gitProxy", "gpg.program",
    "core.alternateRefsCommand", "credential.helper", "diff.external", "merge.x.driver", "diff.x.textconv",
    "diff.x.command", "filter.x.clean", "filter.x.smudge", "remote.origin.uploadpack", "remote.origin.receivepack",
    "uploadpack.packObjectsHook", "gc.recentObjectsHook",
    "alias.status", "alias.ls-files", "alias.fetch", "alias.merge",
)  # fmt: skip
HOOKS = ("post-checkout", "post-merge", "pre-push", "reference-transaction", "post-index-change", "pre-auto-gc")


def trap(marks: Path, name: str) -> str:
    """A program that leaves a mark where it runs."""
    marks.mkdir(exist_ok=True)
    program = marks.with_name(f"run-{name}")
    program.write_text(f"#!/bin/sh\ntouch {marks / name}\nexit 1\n")
    program.chmod(0o755)
    return str(program)


def set_traps(folder: Path, marks: Path) -> None:
    """A `.git` as somebody hostile would hand it on."""
    (folder / ".git" / "hooks").mkdir(exist_ok=True)
    (folder / ".git" / "info").mkdir(exist_ok=True)
    for name in PROGRAMS:
        value = trap(marks, name)
        git(folder, "config", name, f"!{value}" if name.startswith("alias.") else value)
    for name in HOOKS:
        Path(trap(marks, name)).rename(folder / ".git" / "hooks" / name)
    (folder / ".git" / "more").write_text(f"[core]\n\tfsmonitor = {trap(marks, 'included')}\n")
    git(folder, "config", "include.path", "more")
    git(folder, "config", "core.hooksPath", str(folder / ".git" / "hooks"))
    (folder / ".git" / "info" / "attributes").write_text("* filter=x diff=x merge=x\n")
    (folder / "params.yaml").touch()


def edit(line: Line) -> None:
    with reading(line.git) as main:
        files = {"params.yaml": (main.read("params.yaml") or b"") + b"# more\n", "checks/test_x.py": b"pass\n"}
        assert main.push(Change({**files, ".gitattributes": b"* filter=x\n"}, "edit"))


def test_nothing_that_a_checkout_names_runs(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, marks = tmp_path / "line", tmp_path / "marks"
    edit(line)
    set_traps(folder, marks)
    subprocess.run(["git", "-C", folder, "status"], capture_output=True, check=False)
    assert {"included", "filter.x.clean"} & {mark.name for mark in marks.iterdir()}, "the traps work"
    for mark in marks.iterdir():
        mark.unlink()
    monkeypatch.chdir(folder)
    refuse_dirty(Path(), line)
    sync(Path(), line)
    refuse_dirty(folder, line)
    assert list(marks.iterdir()) == []
    assert (folder / "params.yaml").read_text().endswith("# more\n")
    # For Git itself, without its configuration, all is as if it had pulled.
    (folder / ".git" / "config").write_text("[core]\n\trepositoryformatversion = 0\n")
    (folder / ".git" / "info" / "attributes").unlink()
    assert text(folder, "status", "--porcelain") == ""
    assert (
        text(folder, "rev-parse", "HEAD", "refs/remotes/origin/main").split()
        == [text(Path(line.git), "rev-parse", "main")] * 2
    )


def test_a_reading_from_within_a_checkout_asks_nothing_of_it(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_traps(tmp_path / "line", tmp_path / "marks")
    monkeypatch.chdir(tmp_path / "line")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "line" / ".git"))
    with pytest.raises(Unavailable):
        remote_refs("ssh://nobody@127.0.0.1:1/x")
    with reading(".retain/git") as main:
        assert main.numbers() == [1]
    assert list((tmp_path / "marks").iterdir()) == []


def test_a_users_filters_do_not_change_what_a_clone_holds(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(line)
    user = tmp_path / "gitconfig"
    names = ("filter.x.clean", "filter.x.smudge", "core.fsmonitor", "core.askPass")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(user))
    for name in names:
        subprocess.run(["git", "config", "--global", name, trap(tmp_path / "marks", name)], check=True)
    subprocess.run(["git", "config", "--global", "core.autocrlf", "true"], check=True)
    subprocess.run(["git", "config", "--global", "clone.defaultRemoteName", "mine"], check=True)
    clone(line.git, tmp_path / "clone", "main")
    git(tmp_path / "clone", "add", "--all")
    assert text(tmp_path / "clone", "status", "--porcelain") == ""
    assert b"\r" not in (tmp_path / "clone" / "params.yaml").read_bytes()
    assert list((tmp_path / "marks").iterdir()) == []


@pytest.mark.parametrize("name", ["HEAD", "index", "refs", "objects"])
def test_a_git_folder_that_leads_elsewhere(line: Line, tmp_path: Path, name: str) -> None:
    own = tmp_path / "line" / ".git" / name
    own.rename(tmp_path / "elsewhere")
    own.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="holds links"):
        refuse_dirty(tmp_path / "line", line)


def test_changes_and_commits_of_a_persons_own_are_still_seen(line: Line, tmp_path: Path) -> None:
    folder = tmp_path / "line"
    (folder / "params.yaml").write_text("seed: 3\n")
    with pytest.raises(UsageError, match=r"not committed \(params.yaml\)"):
        refuse_dirty(folder, line)
    git(folder, "commit", "-qam", "seed")
    with pytest.raises(UsageError, match="not pushed"):
        refuse_dirty(folder, line)
    edit(line)
    with pytest.raises(UsageError, match="cannot follow main: Not possible to fast-forward"):
        sync(folder, line)


SSH = """ssh: connect to host 127.0.0.1 port 1: Connection refused
fatal: Could not read from remote repository.

Please make sure you have the correct access rights
and the repository exists.
"""
GITHUB = """remote: error: GH006: Protected branch update failed for refs/heads/main.
To github.com:x/y.git
 ! [remote rejected] HEAD -> main (protected branch hook declined)
error: failed to push some refs to 'github.com:x/y.git'
"""
ASKED = "fatal: could not read Username for 'https://me:secret1@example.org': terminal prompts disabled\n"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (SSH, "ssh: connect to host 127.0.0.1 port 1: Connection refused"),
        ("fatal: Could not read from remote repository.\n", "Could not read from remote repository."),
        ("me@x: Permission denied (publickey).\r\n" + SSH[58:], "me@x: Permission denied (publickey)."),
        ("fatal: repository '/x' does not exist\n", "repository '/x' does not exist"),
        (ASKED, "https://***@example.org asks for a credential: none is set, or it was refused"),
        ("warning: empty\nerror: one\nerror: one\nfatal: two\nhint: three\n", "one; two"),
        (GITHUB, "GH006: Protected branch update failed for refs/heads/main."),
        ("", "git fetch"),
    ],
)
def test_the_reason_is_the_line_that_says_why(said: str, told: str) -> None:
    assert told in reason(GitError(f"git fetch: {said.strip()}"))
    assert "repository exists" not in reason(GitError(f"git fetch: {said}"))


def test_what_a_servers_hook_says_is_told() -> None:
    assert refusal(GitError(f"git push: {GITHUB}")) == (
        "GH006: Protected branch update failed for refs/heads/main. (protected branch hook declined)"
    )
    lock = "git push: error: Unable to create '/x/main.lock': File exists.\n ! [remote rejected] a -> b (failed)\n"
    assert "/x/main.lock is in the way" in refusal(GitError(lock))


@pytest.mark.parametrize("where", ["reading", "remote_refs", "clone", "mirror"])
def test_a_server_that_refuses_is_told_as_such(where: str, tmp_path: Path) -> None:
    url = "ssh://nobody@127.0.0.1:1/x"
    calls = {
        "reading": lambda: reading(url).__enter__(),
        "remote_refs": lambda: remote_refs(url),
        "clone": lambda: clone(url, tmp_path / "clone", "main"),
        "mirror": lambda: mirror_workspace(url, tmp_path / "mirror"),
    }
    with pytest.raises(Unavailable, match=r"Connection refused|cannot run ssh") as caught:
        calls[where]()
    assert "repository exists" not in str(caught.value)
