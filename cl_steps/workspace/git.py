"""Git, called as a command in one place: no prompts, no hooks, no configuration of the machine's users."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from cl_steps.errors import IntegrityError, Unavailable

SAFE = (
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.symlinks=false",
    "-c", "commit.gpgSign=false",
    "-c", "tag.gpgSign=false",
    "-c", "protocol.ext.allow=never",
    "-c", "advice.detachedHead=false",
    "-c", "gc.auto=0",
)  # fmt: skip
NAME, EMAIL = "Retain", "retain@localhost"


class GitError(Exception):
    """A git command failed; the caller knows what that means to a person."""


def git(repo: Path | None, *arguments: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None) -> bytes:
    """Run git in `repo` and return what it prints.

    Raises:
        GitError: git's own words, for the caller to classify.
    """
    place = ("-C", str(repo)) if repo else ()
    done = subprocess.run(
        ["git", *SAFE, *place, *arguments], input=stdin, capture_output=True, env=_environment(env or {}), check=False
    )
    if done.returncode:
        raise GitError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def text(repo: Path | None, *arguments: str) -> str:
    """As `git`, as stripped text."""
    return git(repo, *arguments).decode(errors="replace").strip()


def clone(url: str, folder: Path, branch: str) -> None:
    """Clone the tip of one branch, refusing what could lead out of the clone.

    Raises:
        Unavailable: the remote or the branch is not there.
        IntegrityError: a tracked symbolic link or submodule.
    """
    try:
        # --no-local: a plain path would be hard-linked and could not be shallow.
        git(None, "clone", "-q", "--no-local", "--depth", "1", "--no-tags", "--branch", branch, url, str(folder))
    except GitError as error:
        raise Unavailable(
            f"branch {branch!r} of the workspace's Git remote cannot be read: {_last_line(error)}"
        ) from error
    refuse_links(folder)


def refuse_links(folder: Path) -> None:
    """Raise IntegrityError where Git tracks a symbolic link or a submodule."""
    for line in git(folder, "ls-files", "-s", "-z").split(b"\0"):
        if line[:6] in (b"120000", b"160000"):
            name = line.partition(b"\t")[2].decode(errors="replace")
            raise IntegrityError(f"the workspace tracks a symbolic link or submodule, {name!r}: remove it from Git")


def remote_refs(url: str, *patterns: str) -> dict[str, str]:
    """Ref name to commit id of what the remote has; raises Unavailable."""
    try:
        lines = text(None, "ls-remote", url, *patterns).splitlines()
    except GitError as error:
        raise Unavailable(f"the workspace's Git remote cannot be read: {_last_line(error)}") from error
    return {name: commit for commit, name in (line.split("\t") for line in lines)}


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    fixed = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": NAME,
        "GIT_AUTHOR_EMAIL": EMAIL,
        "GIT_COMMITTER_NAME": NAME,
        "GIT_COMMITTER_EMAIL": EMAIL,
    }
    inherited = {
        key: value for key, value in os.environ.items() if key not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
    }
    return {**inherited, **fixed, **extra}


def _last_line(error: GitError) -> str:
    return str(error).splitlines()[-1]
