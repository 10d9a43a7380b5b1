"""Whether main is still the main that runs began with: what was pushed back by force leaves them behind. No DVC.

A branch `begun/<run>` names the commit of main that the run began with, and so does the run's own settings in the
archive. Each was main's tip once; one that main does not have any more tells of an older main that was pushed back.
"""

from __future__ import annotations

from collections.abc import Iterator

from cl_steps.documents import Unreadable, read_yaml
from cl_steps.errors import Unavailable
from cl_steps.repository.archive import archived
from cl_steps.repository.beginning import BEGUN
from cl_steps.repository.bundle import ARCHIVE
from cl_steps.repository.git import GitError, blobs, git, remote_refs, text
from cl_steps.verify.evidence import Evidence
from cl_steps.verify.findings import Finding

LINKS = (b"120000", b"160000")
"""Git's modes of a symbolic link and of a submodule."""


def check_beginnings(book: Evidence) -> Iterator[Finding]:
    """Every run began with a commit that main still has; raises Unavailable."""
    folder = book.main.folder
    _fetch(book)
    known = set(text(folder, "rev-list", "--first-parent", book.main.tip).split())
    begun = text(folder, "for-each-ref", "--format=%(refname)", BEGUN).split()
    named = {ref.removeprefix(BEGUN): f"{ref}:run.yaml" for ref in begun}
    named |= {run: f"{place}run.yaml" for run, place in archived(folder).items()}
    for run, content in zip(named, blobs(folder, named.values()), strict=True):
        base = _base(content)
        if base and base not in known:
            why = f"it began with commit {base[:10]}, which main does not have: an older main was pushed back"
            yield Finding("rewritten", f"run {run}", why)


def check_links(book: Evidence) -> Iterator[Finding]:
    """Main tracks no symbolic link and no submodule: whoever checks it out could be led elsewhere."""
    for line in git(book.main.folder, "ls-tree", "-r", "-z", book.main.tip).split(b"\0"):
        if line[:6] in LINKS:
            path = line.partition(b"\t")[2].decode(errors="replace")
            yield Finding("inconsistent", path, "it is a symbolic link or a submodule, which no workspace has")


def _fetch(book: Evidence) -> None:
    wanted = [f"+{ref}:{ref}" for ref in remote_refs(book.main.url, f"{BEGUN}*", ARCHIVE)]
    if not wanted:
        return
    try:
        git(book.main.folder, "fetch", "-q", "--no-tags", "--depth", "1", "origin", *wanted)
    except GitError as error:
        raise Unavailable(f"the beginnings of the line's runs cannot be read: {error}") from error


def _base(content: bytes | None) -> str:
    """The commit of main that a run.yaml names; empty where it names none."""
    try:
        found = read_yaml(content or b"")
        return str(found.get("base") or "") if isinstance(found, dict) else ""
    except Unreadable:
        return ""
