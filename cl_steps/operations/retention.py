"""Which objects of the store a line still needs, and for what. The Git half: nothing is asked of the store.

Needed is whatever main names now or ever named (the state of every version and every intake), whatever a record names
(the pictures of its night, too), what stands for a withdrawn asset's bytes, and what the tip of any other branch or tag
names, runs under way above all. Not needed is what only the archive names, and what an event says was erased, unless
main names it now. A name counts wherever it stands in a `.dvc` file, a `dvc.lock` or a record: rather keep an object
too many.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cl_steps.pipeline import TONIGHT
from cl_steps.repository.beginning import begun_ref
from cl_steps.repository.bundle import ARCHIVE, SERVERS, Refs, mirror_workspace
from cl_steps.repository.git import blobs, git, remote_refs, text
from cl_steps.repository.mainline import Mainline
from cl_steps.store.pointers import lock_outs

MAIN = "refs/heads/main"
RUNS = "refs/heads/runs/"
OBJECT = re.compile(rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])(?:\.dir)?")


@dataclass(frozen=True)
class Needs:
    """Names (md5, `.dir` at its end for a folder) of objects, by what needs them; one may be needed for several.

    `listed` are those whose list of files must be on the store: without it nobody knows what else is needed. (A record
    also names what only Git has, such as the `checks/` that a gate read.)
    """

    champion: frozenset[str]
    versions: frozenset[str]
    intakes: frozenset[str]
    runs: frozenset[str]
    listed: frozenset[str]

    @property
    def all(self) -> frozenset[str]:
        """Every one of them."""
        return self.champion | self.versions | self.intakes | self.runs


@contextmanager
def mirrored(url: str) -> Iterator[tuple[Mainline, Refs]]:
    """A clone of everything that the Git remote has, as it is now, and its branches and tags.

    Raises:
        Unavailable: the remote cannot be read.
        NoUsableData: it has no main.
    """
    with tempfile.TemporaryDirectory(prefix="retain-") as scratch:
        clone = Path(scratch) / "mirror.git"
        refs = ours(mirror_workspace(url, clone))
        yield Mainline(url, clone, refs[MAIN]), refs


def current_refs(url: str) -> Refs:
    """The branches and tags of the Git remote now; raises Unavailable."""
    return ours({name: commit for name, commit in remote_refs(url, "refs/*").items() if not name.endswith("^{}")})


def ours(refs: Refs) -> Refs:
    """Without those that hosting servers make by themselves, which would keep every run for ever."""
    return {name: commit for name, commit in refs.items() if not name.startswith(SERVERS)}


def needs(main: Mainline, refs: Refs, without: Collection[str] = ()) -> Needs:
    """What the line needs, given a clone of everything; the runs in `without` count as gone."""
    ledger, listed = main.ledger(), promised(main)
    records = _named(content for name, content in main.folder_files("versions").items() if name.endswith(".json"))
    champion, intakes = (_tracked(main, folder) for folder in ("state", "data"))
    erased = set(ledger.erased) - champion - intakes
    gone = {ARCHIVE, *(f"{RUNS}{run}" for run in without), *(begun_ref(run) for run in without)}
    others = set(refs) - gone
    return Needs(
        champion=frozenset(champion),
        versions=frozenset((listed | records) - erased),
        intakes=frozenset(intakes),
        runs=frozenset(_at_tips(main, others) - erased),
        listed=frozenset(listed - erased),
    )


def promised(main: Mainline) -> set[str]:
    """What must be on the store for every version to be as its record says, also what an event says was erased.

    That is the state and the intakes of main, now and ever, what the nights of versions stored, and what stands for
    what was erased.
    """
    outs = (out for record in main.records() for out in lock_outs(record.stages).items())
    nights = {str(out["md5"]) for path, out in outs if path.startswith(TONIGHT)}
    return _history(main) | nights | {str(out["md5"]) for out in main.ledger().replaced.values()}


def _history(main: Mainline) -> set[str]:
    """What every `.dvc` file named that main ever had."""
    show = ("--format=", "--raw", "--no-abbrev", "--no-renames", "-m")
    lines = text(main.folder, "log", *show, main.tip, "--", "*.dvc").splitlines()
    return _named(blobs(main.folder, {line.split()[3] for line in lines}))


def _tracked(main: Mainline, folder: str) -> set[str]:
    return _named(content for name, content in main.folder_files(folder).items() if name.endswith(".dvc"))


def _at_tips(main: Mainline, refs: Collection[str]) -> set[str]:
    """What the trees of main and of those refs name; what main's history holds already is passed over."""
    apart = text(main.folder, "for-each-ref", "--format=%(refname)", "--no-merged", main.tip).splitlines()
    found = set()
    for ref in (MAIN, *(ref for ref in apart if ref in refs)):
        for line in git(main.folder, "ls-tree", "-r", "-z", ref).decode(errors="replace").split("\0"):
            facts, _, path = line.partition("\t")
            if path.endswith((".dvc", "dvc.lock")):
                found.add(facts.split()[2])
    return _named(blobs(main.folder, found))


def _named(contents: Iterable[bytes | None]) -> set[str]:
    return {match.decode() for content in contents for match in OBJECT.findall(content or b"")}
