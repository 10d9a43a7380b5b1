"""`main` of a workspace: read it, and change it by compare-and-swap only.

The truth is the commit on main; tags are derived from it. A change is a commit made on the tip that was read
and pushed with a lease on that tip: whoever loses looks at main again (never at error text) and decides anew.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cl_steps.config import Params, RunSpec, load_params, parse_mapping
from cl_steps.errors import RetainError, Unavailable, UsageError
from cl_steps.ledger.champion import CHAMPION, Champion, parse_champion
from cl_steps.ledger.events import FINAL, Event, event_moment, parse_event
from cl_steps.ledger.fold import Ledger, fold
from cl_steps.ledger.names import existing, numbers_of, tag_of, version_file
from cl_steps.ledger.record import Record, parse_record
from cl_steps.ledger.schemas import refuse_faults
from cl_steps.repository.git import EMAIL, NAME, GitError, address, fetch_files, git, reason, refusal, remote_refs, text
from cl_steps.repository.git import blobs as read_blobs

TRIES = 10
SMALL = "--filter=blob:limit=16k"
"""Of files on main only such are fetched at once, where the server takes filters: a version's record is larger, and
what most commands ask for is not in it.
"""


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
    refused: str = field(default="")
    """Why the remote did not take the last push, in git's words."""
    _events: tuple[str, list[Event]] = field(default=("", []), repr=False)

    @classmethod
    def open(cls, url: str, scratch: Path) -> Mainline:
        """Fetch main into `scratch`; raises Unavailable."""
        folder, url = scratch / "main.git", address(url)
        git(None, "init", "-q", "--bare", str(folder.absolute()))
        git(folder, "remote", "add", "origin", url)
        main = cls(url, folder)
        main.refresh()
        return main

    def refresh(self) -> None:
        """Look at the remote's main again."""
        try:
            how = ("-q", "--depth", "1", "--no-tags", SMALL)
            git(self.folder, "fetch", *how, "origin", "+refs/heads/main:refs/heads/main")
        except GitError as error:
            raise Unavailable(f"main of the workspace's Git remote cannot be read: {reason(error)}") from error
        self.tip = text(self.folder, "rev-parse", "refs/heads/main")

    def read(self, path: str) -> bytes | None:
        """A file of main; None where there is none."""
        try:
            return git(self.folder, "cat-file", "blob", f"{self.tip}:{path}")
        except GitError:
            return None

    def records(self) -> list[Record]:
        """Every version's record, oldest first; raises IntegrityError for what is none."""
        files = self.folder_files("versions")
        names = (f"v{number:04d}.json" for number in numbers_of(files))
        return [parse_record(f"versions/{name}", files[name]) for name in names]

    def record(self, version: str) -> Record:
        """A version's record; raises UsageError where there is no such version, IntegrityError for what is none."""
        return parse_record(version_file(version), self.record_file(version))

    def champion(self) -> Champion:
        """Which version is in use; raises IntegrityError where main names none."""
        return parse_champion(self.read(CHAMPION) or b"")

    def record_file(self, version: str) -> bytes:
        """A version's record, in bytes; raises UsageError where there is no such version."""
        return self.read(version_file(self._existing(version))) or b""

    def numbers(self) -> list[int]:
        """The number of every version, the oldest first."""
        return numbers_of(self.blobs("versions"))

    def tree(self, path: str) -> str:
        """The id of a folder's tree: equal ids mean equal contents. Empty where there is none."""
        line = text(self.folder, "ls-tree", self.tip, path)
        return line.split()[2] if line else ""

    def folder_files(self, folder: str) -> dict[str, bytes]:
        """Name to content of the files right in a folder, in the order of their names."""
        blobs = self.blobs(folder)
        return dict(zip(blobs, self.contents(blobs.values()), strict=True))

    def blobs(self, folder: str) -> dict[str, str]:
        """Name to Git's id of the files right in a folder, in the order of their names: equal ids, equal contents."""
        rows = (line.split(None, 3) for line in text(self.folder, "ls-tree", self.tip, f"{folder}/").splitlines())
        return {path.rpartition("/")[2]: blob for _, kind, blob, path in rows if kind == "blob"}

    def contents(self, blobs: Iterable[str]) -> list[bytes]:
        """The contents of files by Git's ids of them."""
        wanted = list(blobs)
        if not wanted:
            return []
        fetch_files(self.folder, self.tip, wanted)
        return [content for content in read_blobs(self.folder, wanted) if content is not None]

    def ledger(self) -> Ledger:
        """What the events on main say; they are read once for a tip."""
        if self._events[0] != self.tip:
            files = self.folder_files("events").items()
            self._events = (self.tip, [parse_event(name, content) for name, content in files if name.endswith(".json")])
        return fold(self._events[1])

    def last_finished(self) -> datetime:
        """When the last run finished (one that failed has not), and before the first one, when v1 was made.

        Raises:
            UsageError: main holds no version.
        """
        ended = [event.at for event in self.ledger().runs.values() if event.outcome in FINAL]
        made = [record.created for record in self.records()[:1]]
        if not ended and not made:
            raise UsageError("main holds no version: `retain init` makes a workspace")
        return max(datetime.fromisoformat(moment) for moment in ended or made)

    def max_attempts(self) -> int:
        """How often a batch may be rejected before it is set aside, as main's params.yaml says; raises UsageError."""
        return self.params().ingest.max_attempts

    def params(self, run: RunSpec | None = None) -> Params:
        """What main's params.yaml says, with a run's own overrides on top; raises UsageError."""
        (self.folder / "params.yaml").write_bytes(self.read("params.yaml") or b"")
        return load_params(self.folder, run)

    def params_file(self) -> dict[str, Any]:
        """What stands in main's params.yaml, whether it is right or not; raises UsageError where that is no mapping."""
        return parse_mapping(self.read("params.yaml") or b"{}", "main's params.yaml")

    def commit(self, change: Change, parent: str | None = None) -> str:
        """Make the commit here (nothing is pushed) and return its id."""
        index = {"GIT_INDEX_FILE": str(self.folder / f"index.{os.getpid()}")}
        parent = parent or self.tip
        git(self.folder, "read-tree", parent, env=index)
        lines = [self._index_line(path, content) for path, content in change.files.items()]
        git(self.folder, "update-index", "--index-info", stdin="".join(lines).encode(), env=index)
        tree = git(self.folder, "write-tree", "--missing-ok", env=index).decode().strip()
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
        except GitError as error:
            self.refused = refusal(error)
            return False
        self.tip = commit
        return True

    def swap(self, build: Callable[[], Change | None]) -> None:
        """Until it lands: look at main, let `build` make the change anew (None: nothing to do), push.

        Raises:
            Unavailable: it did not land in `TRIES` tries.
            RetainError: the change is not what `retain verify` takes.
        """
        for attempt in range(TRIES):
            change = build()
            if change is None:
                return
            self._refuse_faults(change)
            if self.push(change):
                return
            time.sleep(random.uniform(0, 0.05) * 2 ** min(attempt, 6))
            self.refresh()
        raise Unavailable(f"main of the workspace's Git remote did not take the change: {self.refused}")

    def moment(self) -> datetime:
        """Now, or just after all that main says where that is later: the clock of another machine was ahead of ours.

        Events are read in the order of their names, which are moments, and a version is not older than its parent.
        """
        latest = self._latest_event()
        if latest is None and (numbers := self.numbers()):
            latest = datetime.fromisoformat(self.record(f"v{numbers[-1]}").created)
        return max(datetime.now(UTC), latest + timedelta(microseconds=1)) if latest else datetime.now(UTC)

    def _latest_event(self) -> datetime | None:
        return next(filter(None, map(event_moment, reversed(self.blobs("events")))), None)

    def _refuse_faults(self, change: Change) -> None:
        """Raise RetainError for what `retain verify` would refuse, or events that would be read before older ones."""
        refuse_faults(change.files)
        latest = self._latest_event()
        for path in change.files:
            named = event_moment(path.removeprefix("events/"))
            if latest and named and named <= latest:
                raise RetainError(f"{path} would be read before older events, so nothing was written: a bug of ours")

    def version_commit(self, version: str) -> str:
        """The commit on main that promoted a version; the tag is never asked.

        Raises:
            UsageError: there is no such version.
        """
        name = version_file(self._existing(version))
        self.unshallow()
        return text(self.folder, "log", "--diff-filter=A", "--format=%H", self.tip, "--", name).split()[-1]

    def at(self, commit: str) -> Mainline:
        """Main as it was at a commit, for reading."""
        return replace(self, tip=commit)

    def mend_tags(self) -> list[str]:
        """Make again the tags of versions on main that a crash of the server left out; returns their names.

        Raises:
            Unavailable: the remote cannot be read, or does not take them.
        """
        present = remote_refs(self.url, "refs/tags/model@*")
        missing = {number: tag_of(number) for number in self.numbers() if f"refs/tags/{tag_of(number)}" not in present}
        for number, tag in missing.items():
            commit = self.version_commit(f"v{number}")
            try:
                git(self.folder, "push", "-q", self.url, f"{self._tag(tag, commit)}:refs/tags/{tag}")
            except GitError as error:
                raise Unavailable(f"the tag {tag} cannot be made again: {refusal(error)}") from error
        return list(missing.values())

    def unshallow(self) -> None:
        """Fetch all of main's history, if it is not here yet."""
        if text(self.folder, "rev-parse", "--is-shallow-repository") == "true":
            git(self.folder, "fetch", "-q", "--unshallow", "--no-tags", self.url, "+refs/heads/main:refs/heads/main")

    def _existing(self, version: str) -> str:
        return existing(version, [f"v{number}" for number in self.numbers()])

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
