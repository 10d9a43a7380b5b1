"""Archives of a landing as folders: WebDataset's tar files, and Parquet with a column of images.

Each is unpacked by a process of its own (`unpack`) into a file of ours, before bounds are asked: what it holds is then
listed as if it lay in a folder of the archive's name, and nothing of it has a path.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cl_steps.config import Ingest
from cl_steps.landing import names
from cl_steps.landing.bounds import room_at
from cl_steps.landing.entries import Changed, Entry, Listing, Source, TooLarge, listed, most_listed

SECONDS = 120
BYTES_A_SECOND = 2**20
"""An archive may take so long: a hostile one loops."""
INHERITED = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
"""What the process knows of our environment: no credential."""
DAMAGED = 5
_ENDINGS = {0: "", 3: "no_images"}


@dataclass(frozen=True)
class _Place:
    """Where the bytes of a member lie."""

    file: Path
    at: int


class Unpacked:
    """A landing whose archives are opened; what they hold is kept in a temporary folder as long as this lives."""

    def __init__(self, source: Source) -> None:
        self.at_once = source.at_once
        self._source = source
        self._scratch = Path(tempfile.mkdtemp(prefix="retain-"))
        weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)
        self._places: dict[str, _Place] = {}

    def listing(self, bounds: Ingest) -> Listing:
        """See `Source`."""
        listing = self._source.listing(bounds)
        if not any(entry.is_archive for entry in listing.entries):
            return listing
        found: list[Entry] = []
        for entry in listing.entries:
            found.extend(self._opened(entry, bounds) if entry.is_archive else [entry])
            if len(found) > most_listed(bounds):
                return listed(found[: most_listed(bounds)], bounds, whole=False)
        return listed(found, bounds, listing.whole)

    def read(self, entry: Entry, limit: int) -> bytes:
        """See `Source`."""
        place = self._places.get(entry.name)
        if place is None and not entry.fault:
            return self._source.read(entry, limit)
        if place is None or entry.num_bytes > limit:
            raise TooLarge(f"it holds more than {limit} bytes")
        with place.file.open("rb") as file:
            file.seek(place.at)
            return file.read(entry.num_bytes)

    def _opened(self, entry: Entry, bounds: Ingest) -> Iterator[Entry]:
        """The archive itself, with its fault if it has one, and what it holds."""
        if entry.num_bytes > bounds.max_archive_bytes:
            yield replace(entry, fault="archive_too_large")
            return
        try:
            content = self._source.read(entry, bounds.max_archive_bytes)
        except TooLarge:
            yield replace(entry, fault="archive_too_large")
        except PermissionError:
            yield replace(entry, fault="unreadable")
        except Exception as error:
            yield replace(entry, left="changed" if isinstance(error, Changed | FileNotFoundError) else "away")
        else:
            room = min(bounds.max_landing_bytes, room_at(self._scratch))
            yield from self._members(entry, content, bounds, room)

    def _members(self, entry: Entry, content: bytes, bounds: Ingest, room: int) -> Iterator[Entry]:
        folder = Path(tempfile.mkdtemp(dir=self._scratch))
        (folder / "archive").write_bytes(content)
        seconds = SECONDS + len(content) // BYTES_A_SECOND
        ended = _unpack(folder, names.suffix(entry.name), (bounds.max_file_bytes, room, most_listed(bounds), seconds))
        (folder / "archive").unlink()
        yield replace(entry, fault=_ENDINGS.get(ended, "bad_archive"))
        at, written = 0, (folder / "content").stat().st_size if (folder / "content").is_file() else 0
        for member in _listed(folder / "listed"):
            member = replace(member, name=f"{entry.name}/{member.name}")  # noqa: PLW2901  (below its archive)
            if not member.fault and not member.left:
                if at + member.num_bytes > written:  # the end of one that could not be read on
                    return
                self._places[member.name] = _Place(folder / "content", at)
                at += member.num_bytes
            yield member


def _unpack(folder: Path, kind: str, bounds: tuple[int, int, int, int]) -> int:
    """Have the archive in a folder unpacked into two files beside it; how the process ended (`unpack.main`)."""
    places = [str(folder / name) for name in ("archive", "content", "listed")]
    command = [sys.executable, "-m", "cl_steps.landing.unpack", kind, *places, *map(str, bounds)]
    known = {key: os.environ[key] for key in INHERITED if key in os.environ}
    with suppress(subprocess.TimeoutExpired):
        return subprocess.run(command, env=known, capture_output=True, timeout=4 * bounds[3], check=False).returncode
    return DAMAGED


def _listed(file: Path) -> Iterator[Entry]:
    """The members, up to the first line that was not written to its end."""
    if not file.is_file():
        return
    with file.open("rb") as lines:
        for line in lines:
            try:
                yield Entry(**json.loads(line))
            except (ValueError, TypeError):
                return
