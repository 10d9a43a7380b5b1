"""`main` of a workspace: read it, and change it by compare-and-swap only.

The truth is the commit on main; tags are derived from it. A change is a commit made on the tip that was read
and pushed with a lease on that tip: whoever loses looks at main again (never at error text) and decides anew.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cl_steps.config import load_params
from cl_steps.errors import Unavailable, UsageError
from cl_steps.workspace.git import EMAIL, NAME, GitError, git, remote_refs, text
from cl_steps.workspace.ledger import FINAL, Ledger, fold, parse_event

TRIES = 10


@dataclass(frozen=True)
class Change:
    """What a commit on main changes: path to content (None removes), its message, and a tag to put on it."""

    files: Mapping[str, bytes | None]
    message: str
    tag: str | None = None


@dataclass
class Mainline:
    """A private bare clone of a line's Git remote."""

    url: str
    folder: Path
    tip: str = field(default="")

    @classmethod
    def open(cls, url: str, scratch: Path) -> Mainline:
        """Fetch main into `scratch`; raises Unavailable."""
        folder = scratch / "main.git"
        git(None, "init", "-q", "--bare", str(folder))
        main = cls(url, folder)
        main.refresh()
        return main

    def refresh(self) -> None:
        """Look at the remote's main again."""
        try:
            git(self.folder, "fetch", "-q", "--depth", "1", "--no-tags", self.url, "+refs/heads/main:refs/heads/main")
        except GitError as error:
            raise Unavailable(
                f"main of the workspace's Git remote cannot be read: {str(error).splitlines()[-1]}"
            ) from error
        self.tip = text(self.folder, "rev-parse", "refs/heads/main")

    def read(self, path: str) -> bytes | None:
        """A file of main; None where there is none."""
        try:
            return git(self.folder, "cat-file", "blob", f"{self.tip}:{path}")
        except GitError:
            return None

    def read_json(self, path: str) -> dict[str, Any]:
        """A JSON document of main; empty where there is none."""
        return dict(json.loads(self.read(path) or b"{}"))

    def records(self) -> list[dict[str, Any]]:
        """Every version's record, oldest first."""
        return [
            json.loads(content) for name, content in self.folder_files("versions").items() if name.endswith(".json")
        ]

    def tree(self, path: str) -> str:
        """The id of a folder's tree: equal ids mean equal contents. Empty where there is none."""
        line = text(self.folder, "ls-tree", self.tip, path)
        return line.split()[2] if line else ""

    def folder_files(self, folder: str) -> dict[str, bytes]:
        """Name to content of the files right in a folder, in the order of their names."""
        names = text(self.folder, "ls-tree", "--name-only", self.tip, f"{folder}/").splitlines()
        if not names:
            return {}
        request = "".join(f"{self.tip}:{name}\n" for name in names).encode()
        return dict(zip((n.rpartition("/")[2] for n in names), _batch(self.folder, request), strict=True))

    def ledger(self) -> Ledger:
        """What the events on main say."""
        files = self.folder_files("events")
        return fold(parse_event(name, content) for name, content in files.items() if name.endswith(".json"))

    def last_finished(self) -> datetime:
        """When the last run finished (one that failed has not), and before the first one, when v1 was made.

        Raises:
            UsageError: main holds no version.
        """
        ended = [event["at"] for event in self.ledger().runs.values() if event["outcome"] in FINAL]
        made = [record["created"] for record in self.records()[:1]]
        if not ended and not made:
            raise UsageError("main holds no version: `retain init` makes a workspace")
        return max(datetime.fromisoformat(moment) for moment in ended or made)

    def max_attempts(self) -> int:
        """How often a batch may be rejected before it is set aside, as main's params.yaml says; raises UsageError."""
        (self.folder / "params.yaml").write_bytes(self.read("params.yaml") or b"")
        return load_params(self.folder).ingest.max_attempts

    def commit(self, change: Change, parent: str | None = None) -> str:
        """Make the commit here (nothing is pushed) and return its id."""
        index = {"GIT_INDEX_FILE": str(self.folder / f"index.{os.getpid()}")}
        parent = parent or self.tip
        git(self.folder, "read-tree", parent, env=index)
        lines = [self._index_line(path, content) for path, content in change.files.items()]
        git(self.folder, "update-index", "--index-info", stdin="".join(lines).encode(), env=index)
        tree = git(self.folder, "write-tree", env=index).decode().strip()
        return text(self.folder, "commit-tree", tree, "-p", parent, "-m", change.message)

    def push(self, change: Change) -> bool:
        """One try to put a change on top of the tip that was read; False where somebody was faster."""
        commit = self.commit(change)
        refs = [(commit, "refs/heads/main", self.tip)]
        if change.tag:
            refs.append((self._tag(change.tag, commit), f"refs/tags/{change.tag}", ""))
        leases = [f"--force-with-lease={ref}:{expected}" for _, ref, expected in refs]
        try:
            git(self.folder, "push", "-q", "--atomic", *leases, self.url, *(f"{new}:{ref}" for new, ref, _ in refs))
        except GitError:
            return False
        self.tip = commit
        return True

    def swap(self, build: Callable[[], Change | None]) -> None:
        """Until it lands: look at main, let `build` make the change anew (None: nothing to do), push.

        Raises:
            Unavailable: it did not land in `TRIES` tries.
        """
        for attempt in range(TRIES):
            change = build()
            if change is None or self.push(change):
                return
            time.sleep(random.uniform(0, 0.05) * 2 ** min(attempt, 6))
            self.refresh()
        raise Unavailable("main of the workspace's Git remote did not take the change: try again")

    def mend_tags(self) -> list[str]:
        """Make again the tags of versions on main that a crash of the server left out; returns their names.

        Raises:
            Unavailable: the remote cannot be read, or does not take them.
        """
        present = remote_refs(self.url, "refs/tags/model@*")
        records = (n.removesuffix(".json") for n in self.folder_files("versions") if n.endswith(".json"))
        missing = [name for name in records if f"refs/tags/{tag_of(int(name[1:]))}" not in present]
        if missing:
            self._unshallow()
        for name in missing:
            commit = text(self.folder, "log", "--diff-filter=A", "--format=%H", self.tip, "--", f"versions/{name}.json")
            tag = tag_of(int(name[1:]))
            try:
                git(self.folder, "push", "-q", self.url, f"{self._tag(tag, commit.split()[-1])}:refs/tags/{tag}")
            except GitError as error:
                raise Unavailable(f"the tag {tag} cannot be made again: {str(error).splitlines()[-1]}") from error
        return missing

    def _unshallow(self) -> None:
        if text(self.folder, "rev-parse", "--is-shallow-repository") == "true":
            git(self.folder, "fetch", "-q", "--unshallow", "--no-tags", self.url, "+refs/heads/main:refs/heads/main")

    def _index_line(self, path: str, content: bytes | None) -> str:
        if content is None:
            return f"0 {'0' * 40}\t{path}\n"
        blob = git(self.folder, "hash-object", "-w", "--stdin", stdin=content).decode().strip()
        return f"100644 {blob}\t{path}\n"

    def _tag(self, name: str, commit: str) -> str:
        # The commit's own time: a tag made again is the same object.
        when = text(self.folder, "show", "-s", "--format=%ct", commit)
        body = f"object {commit}\ntype commit\ntag {name}\ntagger {NAME} <{EMAIL}> {when} +0000\n\n{name}\n"
        return git(self.folder, "mktag", stdin=body.encode()).decode().strip()


@contextmanager
def reading(url: str) -> Iterator[Mainline]:
    """Main of the Git remote in a scratch folder that is gone afterwards; raises Unavailable."""
    with tempfile.TemporaryDirectory(prefix="retain-") as scratch:
        yield Mainline.open(url, Path(scratch))


def tag_of(number: int) -> str:
    """A version's tag, in GTO's convention."""
    return f"model@v0.0.{number}"


def _batch(repo: Path, request: bytes) -> list[bytes]:
    """Contents of many objects in one call of git."""
    stream, contents, at = git(repo, "cat-file", "--batch", stdin=request), [], 0
    while at < len(stream):
        start = stream.index(b"\n", at) + 1
        size = int(stream[at:start].split()[2])
        contents.append(stream[start : start + size])
        at = start + size + 1
    return contents
