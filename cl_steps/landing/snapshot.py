"""What one run sees of a landing: its bytes in one file of ours, and a list that says what they are called.

The list, `landing/objects.jsonl`, is all that DVC may meet: a first line of facts, then each object with its true name
(as JSON escapes it), its size, and its SHA-256 or why it was not copied. The bytes lie outside of `landing`, one object
after the other in the list's order, so that no name of a stranger's ever names a file.
"""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from cl_steps import digests
from cl_steps.config import Ingest
from cl_steps.digests import file_sha256
from cl_steps.errors import Unavailable, first_line
from cl_steps.landing.archives import Unpacked
from cl_steps.landing.bounds import room_at, within
from cl_steps.landing.entries import Changed, Entry, Listing, Source, TooLarge
from cl_steps.progress import progress

OBJECTS = "landing/objects.jsonl"
BYTES = "tonight/landing.bytes"
WINDOW_BYTES = 256 * 2**20
"""Of objects that are fetched and not written yet; a larger one is alone in memory."""
PATIENCE = 100
"""So many objects one after the other that could not be read: the rest is left for another night."""


class Snapshot:
    """A landing as it was copied to a run's checkout; it is a `Source`, too."""

    at_once = 1

    def __init__(self, root: Path) -> None:
        self._bytes = root / BYTES
        with (root / OBJECTS).open("rb") as lines:
            facts = json.loads(next(lines))
            entries = [Entry(**json.loads(line)) for line in lines]
        self._listing = Listing(tuple(entries), facts["whole"], file_sha256(root / OBJECTS))
        self._places = dict(_places(entries))

    @classmethod
    def at(cls, root: Path) -> Snapshot | None:
        """The snapshot in the checkout at `root`; None where none was taken and `landing` is the folder itself."""
        return cls(root) if (root / BYTES).is_file() else None

    def listing(self, bounds: Ingest) -> Listing:  # noqa: ARG002  (they held when it was taken)
        """See `Source`."""
        return self._listing

    def read(self, entry: Entry, limit: int) -> bytes:
        """See `Source`."""
        if entry.fault == "too_large" or entry.num_bytes > limit:
            raise TooLarge(f"it holds more than {limit} bytes")
        with self._bytes.open("rb") as file:
            file.seek(self._places[entry.name])
            return file.read(entry.num_bytes)


def take_snapshot(source: Source, bounds: Ingest, run: str, root: Path) -> None:
    """Copy what fits of a landing to the checkout at `root`.

    Raises:
        NoUsableData: there is no landing.
        Unavailable: it is away as a whole.
    """
    no_snapshot(root)
    (root / BYTES).parent.mkdir(exist_ok=True)
    source = Unpacked(source)
    listing = source.listing(bounds)
    entries = within(listing.entries, bounds, run, room_at(root))
    with (root / BYTES).open("wb") as target, (root / OBJECTS).open("w", encoding="ascii") as lines:
        lines.write(json.dumps({"whole": listing.whole}) + "\n")
        for entry in _copied(source, entries, bounds, target):
            lines.write(json.dumps(_row(entry)) + "\n")


def no_snapshot(root: Path) -> None:
    """Leave in the checkout at `root` that this run looks at no landing."""
    (root / BYTES).unlink(missing_ok=True)
    shutil.rmtree((root / OBJECTS).parent, ignore_errors=True)
    (root / OBJECTS).parent.mkdir()


def _row(entry: Entry) -> dict[str, object]:
    facts = {"fault": entry.fault, "left": entry.left, "sha256": entry.sha256, "young": entry.young}
    return {"name": entry.name, "num_bytes": entry.num_bytes} | {key: value for key, value in facts.items() if value}


def _places(entries: Iterable[Entry]) -> Iterator[tuple[str, int]]:
    """Where the bytes of each begin."""
    place = 0
    for entry in entries:
        if entry.is_there:
            yield entry.name, place
            place += entry.num_bytes


def _copied(source: Source, entries: list[Entry], bounds: Ingest, target: IO[bytes]) -> Iterator[Entry]:
    """Each entry, what could be copied of them in `target` and with its digest; raises Unavailable where nothing can.

    One that cannot be read is the landing's fault, or has its turn another night; the others go on.
    """
    num_copied, away = 0, None
    most = bounds.max_landing_bytes + bounds.max_metadata_bytes  # of what grew, or whose size nobody knew
    for entry, content in progress(_contents(source, entries, bounds), len(entries), "landing"):
        if isinstance(content, Exception):
            yield _unread(entry, content)
            away = content if _is_away(content) else away
        elif content is None:
            yield entry
        elif target.tell() + len(content) > most:
            yield replace(entry, left="bytes")
        else:
            target.write(content)
            num_copied += 1
            yield replace(entry, num_bytes=len(content), sha256=digests.sha256(content))
    if away and not num_copied:
        raise Unavailable(f"nothing in the landing can be read now: {first_line(away):.200}") from away


def _unread(entry: Entry, error: Exception) -> Entry:
    if isinstance(error, TooLarge):
        return replace(entry, fault="too_large")
    if isinstance(error, PermissionError):
        return replace(entry, fault="unreadable")
    return replace(entry, left="away" if _is_away(error) else "changed")


def _is_away(error: Exception) -> bool:
    """Whether another object might fail in the same way; what changed, went or is forbidden says nothing of others."""
    return not isinstance(error, Changed | FileNotFoundError | PermissionError | TooLarge)


Found = bytes | Exception | None
"""An object's bytes; why they could not be had; None where they were not to be read."""


def _contents(source: Source, entries: list[Entry], bounds: Ingest) -> Iterator[tuple[Entry, Found]]:
    """Each entry with its bytes, in order, as many at once as the source bears."""
    reading = _Reading(source, bounds)
    if source.at_once == 1:
        yield from ((entry, reading.read(entry)) for entry in entries)
        return
    with _pool(source.at_once) as submit:
        waiting: deque[tuple[Entry, Future[Found]]] = deque()
        held = 0
        for entry in entries:
            while waiting and (held + entry.num_bytes > WINDOW_BYTES or len(waiting) > 8 * source.at_once):
                first, found = waiting.popleft()
                held -= first.num_bytes
                yield first, found.result()
            waiting.append((entry, submit(reading.read, entry)))
            held += entry.num_bytes
        yield from ((entry, found.result()) for entry, found in waiting)


class _Reading:
    """A source that is asked no more once nothing came of it for long: each try may take many seconds."""

    def __init__(self, source: Source, bounds: Ingest) -> None:
        self._source, self._bounds = source, bounds
        self._num_failed, self._error = 0, Exception()

    def read(self, entry: Entry) -> Found:
        """What could be read of an entry."""
        if not entry.is_there:
            return None
        if self._num_failed >= PATIENCE:
            return self._error
        try:
            content = self._source.read(entry, entry.limit(self._bounds))
        except Exception as error:
            if _is_away(error):
                self._num_failed, self._error = self._num_failed + 1, error
            return error
        self._num_failed = 0
        return content


@contextmanager
def _pool(size: int) -> Iterator[Callable[..., Future[Found]]]:
    pool = ThreadPoolExecutor(size)
    try:
        yield pool.submit
    finally:
        pool.shutdown(cancel_futures=True)
