"""One object of a landing as it was found, and what every kind of landing can do: list itself, and read an object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from cl_steps.config import Ingest
from cl_steps.landing import names

LISTED_BEYOND = 1_000_000
"""So many objects, at least, are counted beyond `ingest.max_files`; then nothing more is looked at."""


class Changed(OSError):
    """An object was another when it was read than when it was listed."""


class TooLarge(OSError):
    """An object holds more bytes than may be read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object: a file, or what can be no file of a landing (a link, a folder that cannot be read).

    `name` is its path in the landing with `/` between the parts; bytes that are no UTF-8 are surrogates, as Python
    writes them. `fault` is a code of `data.quarantine` where it is not to be read. `left` says why it stays for
    another night: `files`, `bytes`, `room`, `metadata` (bounds), `changed`, `away` (while it was read). `sha256` is
    known once it was copied. A `young` one was changed so lately that it may not be whole yet.
    """

    name: str
    num_bytes: int = 0
    fault: str = ""
    left: str = ""
    sha256: str = ""
    young: bool = False

    @property
    def is_metadata(self) -> bool:
        """Whether it tells of other files."""
        return names.is_metadata(self.name)

    @property
    def is_sidecar(self) -> bool:
        """Whether it may be a caption beside its picture."""
        is_text = names.suffix(self.name) in names.SIDECARS
        return is_text and not self.is_hidden and not self.is_metadata and not self.no_picture

    @property
    def is_archive(self) -> bool:
        """Whether it is to be opened."""
        return self.no_picture == "opened" and not self.fault and not self.left

    @property
    def no_picture(self) -> str:
        """Which of `names.NO_PICTURES` its name says it is: passed over, its bytes never looked at."""
        return names.no_picture(self.name, self.num_bytes)

    @property
    def is_hidden(self) -> bool:
        """Whether it lies in, or is, what begins with a dot: left alone unless a metadata line names it."""
        return names.is_hidden(self.name)

    @property
    def is_there(self) -> bool:
        """Whether its bytes are to be had."""
        return not self.fault and not self.left and not self.no_picture

    def limit(self, bounds: Ingest) -> int:
        """The most bytes that may be read of it."""
        if self.is_sidecar:
            return names.MAX_SIDECAR_BYTES
        return bounds.max_metadata_bytes if self.is_metadata else bounds.max_file_bytes


@dataclass(frozen=True)
class Listing:
    """Every object of a landing, sorted by name; not `whole`: there are more, which nobody looked at.

    `digest` (SHA-256) is that of names and contents, where those are known.
    """

    entries: tuple[Entry, ...]
    whole: bool = True
    digest: str = ""


class Source(Protocol):
    """A landing that can be read."""

    at_once: int
    """How many objects may be read at the same time."""

    def listing(self, bounds: Ingest) -> Listing:
        """All that lies there; raises NoUsableData where there is no landing, Unavailable where it is away."""

    def read(self, entry: Entry, limit: int) -> bytes:
        """The bytes of an object, at most `limit`; raises OSError (TooLarge, Changed), or what a library raises."""


def most_listed(bounds: Ingest) -> int:
    """How many objects and folders are looked at before it is enough."""
    return bounds.max_files + max(bounds.max_files, LISTED_BEYOND)


def listed(found: Iterable[Entry], bounds: Ingest, whole: bool) -> Listing:
    """The listing of what was found, with the faults that a name or a place alone makes.

    A name with an empty part, `.` or `..` is never asked for again: a library might take it for another's.
    """
    entries: list[Entry] = []
    for entry in sorted(found, key=lambda entry: entry.name):
        if entries and entries[-1].name == entry.name:
            entry = replace(entry, fault=entry.fault or "bad_name")  # noqa: PLW2901  (the same, with its fault)
        entries.append(_judged(entry, bounds))
    return Listing(tuple(entries), whole)


def _judged(entry: Entry, bounds: Ingest) -> Entry:
    if entry.fault:
        return entry
    parts = entry.name.split("/")
    if len(parts) > bounds.max_depth + 1:
        return replace(entry, fault="too_deep")
    return replace(entry, fault="bad_name") if {"", ".", ".."} & set(parts) else entry
