"""A person's own checkout of a workspace: keep it clean, bring it up to date.

The configuration of such a checkout may name programs (filters, monitors, ways to connect), and a folder that came from
somebody else brings theirs. So Git works in it from a private folder beside: with the checkout's objects, branches and
index, and a configuration and attributes of our own. Filters of the person's own, Git LFS too, do not run either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from cl_steps.errors import Unavailable, UsageError
from cl_steps.repository.git import UNFILTERED, GitError, address, git, reason, refuse_links
from cl_steps.repository.line import Line

LINKED = ("objects", "refs", "packed-refs", "reftable", "shallow")
FILES = ("HEAD", "index", "config")
FACTS = r"^(core\.(filemode|ignorecase|precomposeunicode|trustctime|checkstat)|extensions\.(objectformat|refstorage))$"
"""What of the configuration says how the checkout is stored, and nothing else."""
TRACKING = "refs/remotes/origin/main"


def refuse_dirty(folder: Path, line: Line) -> None:
    """Raise UsageError where the checkout holds changes that a run, which works from main, would not see."""
    if not (folder / ".git").exists():
        return
    with _apart(folder) as env:
        refuse_links(folder, env)
        changed = _text(folder, env, "status", "--porcelain", "--untracked-files=no").splitlines()
        if changed:
            names = ", ".join(entry.split(maxsplit=1)[1] for entry in changed[:3])
            raise UsageError(
                f"the workspace has changes that are not committed ({names}): commit and push or discard them"
            )
        _fetch(folder, env, line)
        if _text(folder, env, "rev-list", f"{TRACKING}..HEAD"):
            raise UsageError("the workspace has commits that are not pushed: `git push origin main`, then try again")


def sync(folder: Path, line: Line) -> None:
    """Fast-forward the checkout to main and fetch the state's data that changed."""
    if not (folder / ".git").exists():
        return
    with _apart(folder) as env:
        before = _text(folder, env, "rev-parse", "HEAD:state")
        _fetch(folder, env, line, "--tags")
        try:
            git(folder, "merge", "-q", "--ff-only", TRACKING, env=env)
        except GitError as error:
            raise UsageError(f"the workspace's checkout cannot follow main: {reason(error)}") from error
        after = _text(folder, env, "rev-parse", "HEAD:state")
    if after != before:
        fetch_state(folder)


def fetch_state(folder: Path) -> None:
    """Bring `state/` on disk to what the checkout's `.dvc` files name, from the store of its own configuration."""
    from cl_steps.store import dvc

    with dvc.opened(folder.resolve()) as repo:
        dvc.pull(repo, [f"state/{path.stem}" for path in sorted((folder / "state").glob("*.dvc"))])


@contextmanager
def _apart(folder: Path) -> Iterator[Mapping[str, str]]:
    """The environment for Git in a checkout without its configuration; raises UsageError where it is no plain one."""
    own = (folder / ".git").absolute()
    linked = own.is_symlink() or any((own / name).is_symlink() for name in (*FILES, *LINKED))
    if linked or not all((own / name).is_file() for name in FILES):
        raise UsageError(f"{own} is no folder as Git makes it, or holds links: clone the workspace anew")
    with TemporaryDirectory(prefix="retain-") as scratch:
        private = Path(scratch)
        for name in LINKED:
            if (own / name).exists():
                (private / name).symlink_to(own / name)
        (private / "HEAD").write_bytes((own / "HEAD").read_bytes())
        (private / "config").write_text(_configuration(own / "config"), encoding="utf-8")
        (private / "info").mkdir()
        (private / "info" / "attributes").write_text(UNFILTERED, encoding="utf-8")
        yield {
            "GIT_DIR": str(private),
            "GIT_WORK_TREE": str(folder.absolute()),
            "GIT_INDEX_FILE": str(own / "index"),
        }


def _configuration(file: Path) -> str:
    """A configuration with the facts of that file that say how a checkout is stored; what it includes is not read."""
    try:
        found = git(None, "config", "--file", str(file), "--no-includes", "--null", "--get-regexp", FACTS).decode()
    except GitError:  # none of them is there
        found = ""
    facts = dict(entry.partition("\n")[::2] for entry in found.split("\0") if entry)
    plain = {name: value for name, value in facts.items() if re.fullmatch(r"[a-z0-9]+", value)}
    version = 1 if any(name.startswith("extensions.") for name in plain) else 0
    lines = [f"[core]\n\trepositoryformatversion = {version}\n\tbare = false\n"]
    for name, value in plain.items():
        section, _, key = name.partition(".")
        lines.append(f"[{section}]\n\t{key} = {value}\n")
    return "".join(lines)


def _fetch(folder: Path, env: Mapping[str, str], line: Line, *how: str) -> None:
    """Main as the line's remote has it now; what the checkout's own configuration calls `origin` is not asked."""
    what = (address(line.git), f"+refs/heads/main:{TRACKING}")
    try:
        git(folder, "fetch", "-q", "--no-write-fetch-head", *how, *what, env=env)
    except GitError as error:
        raise Unavailable(f"the workspace's checkout cannot fetch main: {reason(error)}") from error


def _text(folder: Path, env: Mapping[str, str], *arguments: str) -> str:
    return git(folder, *arguments, env=env).decode(errors="replace").strip()
