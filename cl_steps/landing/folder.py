"""A landing that is a folder of this machine.

Nothing outside it is ever opened: every part of a path is opened below the one before, and none may be a link, not even
one that takes a folder's place while we read. Paths may be longer than the system takes in one call.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cl_steps.config import Ingest
from cl_steps.errors import NoUsableData, Unavailable, first_line
from cl_steps.landing.entries import Changed, Entry, Listing, TooLarge, listed, most_listed


class Folder:
    """A folder on a file system, and its plain files."""

    at_once = 1

    def __init__(self, root: Path) -> None:
        self._root = root

    def listing(self, bounds: Ingest) -> Listing:
        """See `Source`."""
        self._refuse_missing()
        found: list[Entry] = []
        pending, num_seen, most = [""], 0, most_listed(bounds)
        while pending:
            folder = pending.pop()
            for entry, is_folder in self._look_into(folder, bounds):
                num_seen += 1
                if num_seen > most:
                    return listed(found, bounds, whole=False)
                if is_folder:
                    pending.append(entry.name)
                else:
                    found.append(entry)
        return listed(found, bounds, whole=True)

    def read(self, entry: Entry, limit: int) -> bytes:
        """See `Source`."""
        with self._opened(entry.name, os.O_NONBLOCK) as descriptor:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise Changed("it is no plain file any more")
            if found.st_size > limit:
                raise TooLarge(f"it holds more than {limit} bytes")
            if found.st_size != entry.num_bytes:
                raise Changed("it is being written")
            with os.fdopen(os.dup(descriptor), "rb") as file:
                content = file.read(found.st_size + 1)
        if len(content) != found.st_size:
            raise Changed("it changed while it was read")
        return content

    def _refuse_missing(self) -> None:
        try:
            os.close(os.open(self._root, os.O_RDONLY | os.O_DIRECTORY))
        except (FileNotFoundError, NotADirectoryError):
            raise NoUsableData(
                f"the landing folder {self._root} is not there: make it and put images and metadata.jsonl in it"
            ) from None
        except OSError as error:
            raise Unavailable(f"the landing folder {self._root} cannot be read: {first_line(error)}") from error

    def _look_into(self, folder: str, bounds: Ingest) -> Iterator[tuple[Entry, bool]]:
        """What lies right in a folder, and whether each is a folder to look into, too."""
        try:
            with self._opened(folder, os.O_DIRECTORY) as descriptor, os.scandir(descriptor) as found:
                for entry in found:
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    yield _entry(name, entry, bounds)
        except OSError:
            yield Entry(folder, fault="unreadable"), False

    @contextmanager
    def _opened(self, name: str, flags: int) -> Iterator[int]:
        *folders, last = name.split("/") if name else ["."]
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in folders:
                descriptor = _step(descriptor, part, os.O_DIRECTORY)
            # Without O_NONBLOCK a FIFO would be waited for; what is no plain file is refused once it is open.
            descriptor = _step(descriptor, last, flags)
            yield descriptor
        finally:
            os.close(descriptor)


def _entry(name: str, found: os.DirEntry[str], bounds: Ingest) -> tuple[Entry, bool]:
    try:
        facts = found.stat(follow_symlinks=False)
    except OSError:
        return Entry(name, fault="unreadable"), False
    if stat.S_ISLNK(facts.st_mode):
        return Entry(name, fault="symlink"), False
    if stat.S_ISDIR(facts.st_mode):
        deep = name.count("/") >= bounds.max_depth
        return Entry(name, fault="too_deep" if deep else ""), not deep
    if not stat.S_ISREG(facts.st_mode):
        return Entry(name, fault="not_a_file"), False
    return Entry(name, facts.st_size, young=abs(now() - facts.st_mtime) < bounds.settle_seconds), False


def now() -> float:
    """This machine's clock, in seconds since 1970."""
    return time.time()


def _step(folder: int, part: str, flags: int) -> int:
    descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=folder)
    os.close(folder)
    return descriptor
