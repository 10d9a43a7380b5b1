"""Main's history as it was written: commit after commit, each with what it added, changed or deleted. No DVC."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cl_steps.repository.git import blobs, git
from cl_steps.repository.mainline import Mainline

HEADER = "\x01"


@dataclass(frozen=True)
class Commit:
    """A commit on main: its id, that of the one before ("" for the first), and its changes as (status, path).

    A status is `A` (added), `M` (changed), `D` (deleted) or another letter of Git's.
    """

    id: str
    before: str
    changes: tuple[tuple[str, str], ...]


def history(main: Mainline, *folders: str) -> list[Commit]:
    """The commits of main's own line (merged branches count as one) that touched `folders`, the oldest first."""
    main.unshallow()
    words = ("log", "--first-parent", "--diff-merges=first-parent", "--reverse", "--no-renames", "--name-status", "-z")
    stream = git(main.folder, *words, f"--format={HEADER}%H %P", main.tip, "--", *folders)
    tokens = iter(stream.decode(errors="surrogateescape").split("\0"))
    found: list[tuple[str, str, list[tuple[str, str]]]] = []
    for token in tokens:
        if token.startswith(HEADER):
            commit, *before = token.removeprefix(HEADER).split()
            found.append((commit, before[0] if before else "", []))
        elif token:
            found[-1][2].append((token.strip()[0], next(tokens)))
    return [Commit(commit, before, tuple(changes)) for commit, before, changes in found]


def contents(main: Mainline, places: Iterable[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    """What lies at (commit, path), for those places where something does: one call of git for all of them."""
    wanted = list(dict.fromkeys(place for place in places if place[0]))
    found = blobs(main.folder, (f"{commit}:{path}" for commit, path in wanted)) if wanted else []
    return {place: content for place, content in zip(wanted, found, strict=True) if content is not None}
