"""Git, called as a command in one place: no prompts, no hooks, no configuration of the machine's users."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
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
RECORDS, LEDGER = ("versions",), ("events", "data")
"""The folders of a workspace that grow with every night. No step reads the records, and ingest alone the ledger."""


LOCK = re.compile(r"Unable to create '([^'\n]+\.lock)': File exists")
REJECTED = re.compile(r"! \[(?:remote )?rejected\] .*\(([^()]+)\)")


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


def blobs(repo: Path, names: Iterable[str]) -> list[bytes | None]:
    """Contents of objects by their ids or as `REF:PATH`, in one call of git; None for those that are not there."""
    request = "".join(f"{name}\n" for name in names).encode()
    stream, at = git(repo, "cat-file", "--batch", stdin=request), 0
    contents: list[bytes | None] = []
    while at < len(stream):
        start = stream.index(b"\n", at) + 1
        header = stream[at:start].rsplit(maxsplit=2)
        if header[-1] == b"missing":
            contents.append(None)
            at = start
            continue
        size = int(header[-1])
        contents.append(stream[start : start + size])
        at = start + size + 1
    return contents


def fetch_files(repo: Path, commit: str, ids: Iterable[str]) -> None:
    """Bring, all at once, those files of a commit that a filtered fetch left at the remote `origin`.

    Git itself would ask for one after the other.

    Raises:
        Unavailable: they cannot be fetched.
    """
    try:
        lines = text(repo, "rev-list", "--objects", "--missing=print", "--no-walk", commit).splitlines()
        left = {line[1:] for line in lines if line.startswith("?")}
        absent = "".join(f"{blob}\n" for blob in ids if blob in left).encode()
        if absent:
            how = ("--no-tags", "--no-write-fetch-head", "--no-auto-gc", "--filter=blob:none", "--stdin")
            git(repo, "-c", "fetch.negotiationAlgorithm=noop", "fetch", "-q", *how, "origin", stdin=absent)
    except GitError as error:
        raise Unavailable(f"files of the workspace's Git remote cannot be read: {_last_line(error)}") from error


def clone(url: str, folder: Path, branch: str, leave: Iterable[str] = (*RECORDS, *LEDGER)) -> None:
    """Clone the tip of one branch but for some of its folders, refusing what could lead out of the clone.

    A server that takes filters (git asks, and goes on without where it does not) does not send the folders either: what
    a step transfers and writes does not grow with the line.

    Raises:
        Unavailable: the remote or the branch is not there.
        IntegrityError: a tracked symbolic link or submodule.
    """
    # --no-local: a plain path would be hard-linked and could not be shallow.
    shallow = ("--no-local", "--depth", "1", "--no-tags", "--filter=blob:none", "--no-checkout")
    try:
        git(None, "clone", "-q", *shallow, "--branch", branch, url, str(folder))
        git(folder, "config", "core.sparseCheckout", "true")
        patterns = ["/*", *(f"!/{name}/" for name in leave)]
        (folder / ".git" / "info" / "sparse-checkout").write_text("\n".join([*patterns, ""]), encoding="utf-8")
        git(folder, "checkout", "-q", branch)
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


def refusal(error: GitError) -> str:
    """Why a remote did not take a push, in a few words for a person; nothing is decided by them."""
    left = LOCK.search(str(error))
    if left:
        return f"its lock {left[1]} is in the way: delete it if no Git is at work there, then try again"
    rejected = REJECTED.search(str(error))
    return f"{rejected[1]}: try again" if rejected else _last_line(error)


def _last_line(error: GitError) -> str:
    return str(error).splitlines()[-1]
