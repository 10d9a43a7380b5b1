"""Git, called as a command in one place: no prompts, no hooks, no programs that a repository names.

The configuration of the machine and of its user is read, since it says how remotes are reached (credentials, proxies,
other addresses); what it could do to contents, or run on the way, is turned off here. That of a repository is read in
clones of ours, which nobody else configures; in a person's checkout `repository.checkout` leaves it out. A remote that
is a folder is a server of its own, with its own configuration and hooks.

Attributes say which filters change a file on its way in and out: a clone of ours switches them off for every file.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from cl_steps.errors import IntegrityError, Unavailable
from cl_steps.foreign import redacted

SAFE = (
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.fsmonitor=false",
    "-c", "core.attributesFile=/dev/null",
    "-c", "core.pager=cat",
    "-c", "core.symlinks=false",
    "-c", "commit.gpgSign=false",
    "-c", "tag.gpgSign=false",
    "-c", "tag.forceSignAnnotated=false",
    "-c", "push.gpgSign=false",
    "-c", "log.showSignature=false",
    "-c", "init.templateDir=",
    "-c", "clone.defaultRemoteName=origin",
    "-c", "credential.interactive=false",
    "-c", "protocol.ext.allow=never",
    "-c", "advice.detachedHead=false",
    "-c", "gc.auto=0",
)  # fmt: skip
NAME, EMAIL = "Retain", "retain@localhost"
RECORDS, LEDGER = ("versions",), ("events", "data")
"""The folders of a workspace that grow with every night. No step reads the records, and ingest alone the ledger."""
UNFILTERED = "* -filter -ident -diff -working-tree-encoding\n"
"""Attributes, of the strongest kind (`info/attributes`): no program changes or shows a file."""
UNCHANGED = "* -filter -ident -diff -working-tree-encoding -text -eol\n"
"""The same, and line ends as they are: a clone of ours holds the bytes that Git has."""
LEFT_OUT = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_SHALLOW_FILE", "GIT_NAMESPACE", "GIT_TEMPLATE_DIR", "GIT_CONFIG",
    "GIT_EXTERNAL_DIFF", "GIT_ATTR_SOURCE", "GIT_GRAFT_FILE",
)  # fmt: skip
"""What a hook, or an editor, that started us says of a repository of its own."""


LOCK = re.compile(r"Unable to create '([^'\n]+\.lock)': File exists")
REJECTED = re.compile(r"! \[(?:remote )?rejected\] .*\(([^()]+)\)")
EMPTY_WORDS = re.compile(
    r"Please make sure you have the correct access rights|and the repository exists\.|hint: .*|warning: .*|To .*|! \[.*"
    r"|failed to push some refs to .*|Warning: Permanently added .*|Cloning into .*|\W*"
)
"""What Git says with every error of a remote, and what is said elsewhere."""
UNREAD = "Could not read from remote repository."
ASKS = re.compile(r"could not read (?:Username|Password) for '([^'\n]*)': .*")


class GitError(Exception):
    """A git command failed; the caller knows what that means to a person."""


def git(repo: Path | None, *arguments: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None) -> bytes:
    """Run git in `repo` and return what it prints; without one, in no repository at all: paths must be absolute.

    Raises:
        GitError: git's own words, for the caller to classify.
        Unavailable: there is no git.
    """
    place, environment = ("-C", str(repo or Path("/"))), _environment(env or {})
    try:
        done = subprocess.run(
            ["git", *SAFE, *place, *arguments], input=stdin, capture_output=True, env=environment, check=False
        )
    except FileNotFoundError as error:
        raise Unavailable("there is no git on this machine: install it") from error
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
        raise Unavailable(f"files of the workspace's Git remote cannot be read: {reason(error)}") from error


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
        git(None, "clone", "-q", *shallow, "--branch", branch, address(url), str(folder.absolute()))
        git(folder, "config", "core.sparseCheckout", "true")
        (folder / ".git" / "info").mkdir(exist_ok=True)
        (folder / ".git" / "info" / "attributes").write_text(UNCHANGED, encoding="utf-8")
        patterns = ["/*", *(f"!/{name}/" for name in leave)]
        (folder / ".git" / "info" / "sparse-checkout").write_text("\n".join([*patterns, ""]), encoding="utf-8")
        git(folder, "checkout", "-q", branch)
    except GitError as error:
        raise Unavailable(f"branch {branch!r} of the workspace's Git remote cannot be read: {reason(error)}") from error
    refuse_links(folder)


def refuse_links(folder: Path, env: Mapping[str, str] | None = None) -> None:
    """Raise IntegrityError where Git tracks a symbolic link or a submodule."""
    for line in git(folder, "ls-files", "-s", "-z", env=env).split(b"\0"):
        if line[:6] in (b"120000", b"160000"):
            name = line.partition(b"\t")[2].decode(errors="replace")
            raise IntegrityError(f"the workspace tracks a symbolic link or submodule, {name!r}: remove it from Git")


def remote_refs(url: str, *patterns: str) -> dict[str, str]:
    """Ref name to commit id of what the remote has; raises Unavailable."""
    try:
        lines = text(None, "ls-remote", address(url), *patterns).splitlines()
    except GitError as error:
        raise Unavailable(f"the workspace's Git remote cannot be read: {reason(error)}") from error
    return {name: commit for commit, name in (line.split("\t") for line in lines)}


def address(url: str) -> str:
    """A remote as it is found from everywhere: the path of a folder is made absolute."""
    return url if "://" in url or not Path(url).exists() else str(Path(url).absolute())


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    fixed = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": os.environ.get("GIT_ASKPASS", ""),  # set and empty: no program of a desktop asks
        "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND") or _ssh(),
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_AUTHOR_NAME": NAME,
        "GIT_AUTHOR_EMAIL": EMAIL,
        "GIT_COMMITTER_NAME": NAME,
        "GIT_COMMITTER_EMAIL": EMAIL,
        "LC_ALL": "C",  # what git says is read here
    }
    inherited = {key: value for key, value in os.environ.items() if key not in LEFT_OUT}
    return {**inherited, **fixed, **extra}


@cache
def _ssh() -> str:
    """What connects by SSH: what the machine or its user chose, else ssh, which must not ask for a password."""
    env = {key: value for key, value in os.environ.items() if key not in LEFT_OUT}
    asked = ["git", "-C", "/", "config", "--get", "core.sshCommand"]
    chosen = subprocess.run(asked, env=env, capture_output=True, text=True, check=False).stdout.strip()
    return chosen or shlex.join(filter(None, [os.environ.get("GIT_SSH")])) or "ssh -o BatchMode=yes"


def reason(error: GitError) -> str:
    """Why git could not do it, in its own words, whole but for what it says with every error; for a person."""
    lines = re.sub(r"^git [a-z-]+: ", "", str(error)).splitlines()
    said = [re.sub(r"^\s*(remote: )?\s*((fatal|error|ERROR): )?", "", line).strip() for line in lines]
    said = [ASKS.sub(r"\1 asks for a credential: none is set, or it was refused", line) for line in said]
    kept = list(dict.fromkeys(line for line in said if not EMPTY_WORDS.fullmatch(line)))
    if len(kept) > 1 and UNREAD in kept:
        kept.remove(UNREAD)
    return redacted("; ".join(kept) or str(error))[:600]


def refusal(error: GitError) -> str:
    """Why a remote did not take a push, in a few words for a person; nothing is decided by them."""
    left = LOCK.search(str(error))
    if left:
        return f"its lock {left[1]} is in the way: delete it if no Git is at work there, then try again"
    rejected = REJECTED.search(str(error))
    words = reason(error)
    if rejected:
        return f"{rejected[1]}: try again" if words == str(error) else f"{words} ({rejected[1]})"
    return words
