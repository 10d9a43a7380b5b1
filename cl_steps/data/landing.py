"""The landing: a folder that strangers may write to. Images, and `metadata.jsonl` or `.csv` beside or above them.

`file_name` is relative to the folder of the metadata file that holds it. Nothing outside the folder is ever opened:
links are not followed, not even ones that appear while we read. Names that begin with a dot are left alone unless a
metadata line names them (`.gitkeep`, `.DS_Store`).
"""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from cl_steps.data import metadata
from cl_steps.data.captions import file_of, is_clean
from cl_steps.data.quarantine import Quarantined, Unusable, printable
from cl_steps.errors import NoUsableData


@dataclass(frozen=True)
class Claim:
    """What a metadata line says of a file of the landing."""

    file: str
    values: Mapping[str, Any]


@dataclass
class Landing:
    """What lies in a landing folder: plain files by their path in it, and what cannot be used, with why."""

    root: Path
    max_file_bytes: int
    files: set[str] = field(default_factory=set)
    refused: list[Quarantined] = field(default_factory=list)

    @classmethod
    def at(cls, root: Path, max_file_bytes: int) -> Landing:
        """Look through the folder; raises NoUsableData where there is none."""
        if not root.is_dir():
            message = f"the landing folder {root} is not there: make it and put images and metadata.jsonl in it"
            raise NoUsableData(message)
        landing = cls(root, max_file_bytes)
        folders = [""]
        while folders:
            folders.extend(landing._look_into(folders.pop()))
        return landing

    def claims(self) -> list[Claim]:
        """One claim a file, sorted by path (an empty one where no line names the file); bad lines go to `refused`."""
        sources = sorted(name for name in self.files if PurePosixPath(name).name in metadata.NAMES)
        claims: dict[str, Claim] = {}
        for source in sources:
            for line in self._lines(source):
                self._claim(source, line, claims)
        for name in self.files - claims.keys() - set(sources):
            if not any(part.startswith(".") for part in PurePosixPath(name).parts):
                claims[name] = Claim(name, {})
        return [claims[name] for name in sorted(claims)]

    def read(self, name: str, max_bytes: int | None = None) -> bytes:
        """The bytes of a plain file, at most `max_bytes`; raises Unusable, also where a link has taken its place."""
        limit = self.max_file_bytes if max_bytes is None else max_bytes
        try:
            with _opened_beneath(self.root, name) as descriptor:
                num_bytes = os.fstat(descriptor).st_size
                content = _read(descriptor, num_bytes + 1) if num_bytes <= limit else b""
        except OSError:
            raise Unusable("unreadable", "the file cannot be read: check its permissions") from None
        if num_bytes > limit:
            raise Unusable(
                "too_large", f"the file is larger than {limit} bytes: make it smaller (ingest.max_file_bytes)"
            )
        if len(content) != num_bytes:
            raise Unusable("unreadable", "the file changed while it was read: leave it until it is complete")
        return content

    def refuse(self, name: str, fault: Unusable) -> None:
        """Put a file aside; its bytes, where they can be read, are kept by digest."""
        found = Quarantined(printable(name), fault.code, fault.reason, origin=name, num_bytes=self._size(name))
        with suppress(Unusable):
            found = _with_digest(found, self.read(name)) if name in self.files else found
        self.refused.append(found)

    def _look_into(self, folder: str) -> list[str]:
        """Note the files of one folder; returns its folders."""
        folders = []
        try:
            entries = list(os.scandir(self.root / folder))
        except OSError:
            self.refuse(folder, Unusable("unreadable", "the folder cannot be read: check its permissions"))
            return []
        for entry in entries:
            name = str(PurePosixPath(folder) / entry.name)
            if entry.is_symlink():
                self.refuse(name, Unusable("symlink", "this is a link: put the file itself here"))
            elif not is_clean(entry.name):
                self.refuse(name, Unusable("bad_name", "the name is not plain text: rename it"))
            elif entry.is_dir(follow_symlinks=False):
                folders.append(name)
            elif entry.is_file(follow_symlinks=False):
                self.files.add(name)
            else:
                self.refuse(name, Unusable("not_a_file", "this is no plain file: remove it"))
        return folders

    def _lines(self, source: str) -> Iterator[metadata.Line]:
        try:
            yield from metadata.lines_of(source, self.read(source, metadata.MAX_BYTES))
        except Unusable as fault:
            self.refuse(source, fault)

    def _claim(self, source: str, line: metadata.Line, claims: dict[str, Claim]) -> None:
        """Enter what a line says into `claims`, or the line into `refused`; the first line of a file counts."""
        try:
            claim = self._claim_of(line, str(PurePosixPath(source).parent), claims)
        except Unusable as fault:
            where = f"{printable(source)}:{line.number}"
            self.refused.append(_with_digest(Quarantined(where, fault.code, fault.reason, content=line.raw), line.raw))
        else:
            claims[claim.file] = claim

    def _claim_of(self, line: metadata.Line, folder: str, claims: Mapping[str, Claim]) -> Claim:
        if line.fault:
            raise line.fault
        file = self._existing(file_of(line.values, folder))
        if file in claims:
            raise Unusable("duplicate_line", "an earlier line names the same file, and counts: remove one")
        return Claim(file, line.values)

    def _existing(self, name: str) -> str:
        """The file of that name, whichever way its accents are encoded (macOS writes them decomposed)."""
        for form in (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)):
            if form in self.files:
                return form
        raise Unusable("missing_file", f"there is no file {printable(name)!r}: add it or remove the line")

    def _size(self, name: str) -> int:
        try:
            found = os.lstat(self.root / name)
        except OSError:
            return 0
        return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _with_digest(found: Quarantined, content: bytes) -> Quarantined:
    return replace(found, sha256=hashlib.sha256(content).hexdigest(), num_bytes=len(content))


def _read(descriptor: int, max_bytes: int) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read(max_bytes)


@contextmanager
def _opened_beneath(root: Path, name: str) -> Iterator[int]:
    """A descriptor of a plain file below `root`, opened part by part so that no part can be a link; raises OSError.

    A FIFO does not block (O_NONBLOCK) and is refused after it was opened, as is everything that is no plain file.
    """
    *folders, last = PurePosixPath(name).parts
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in folders:
            descriptor = _step(descriptor, part, os.O_DIRECTORY)
        descriptor = _step(descriptor, last, os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{name!r} is no plain file")
        yield descriptor
    finally:
        os.close(descriptor)


def _step(folder: int, part: str, flags: int) -> int:
    descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=folder)
    os.close(folder)
    return descriptor
