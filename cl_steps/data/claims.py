"""What a landing says of its files: `metadata.jsonl` or `.csv`, beside or above them; captions beside fill gaps.

`file_name` is relative to the folder of the metadata file that holds it. Names that begin with a dot are left alone
unless a line names them (`.gitkeep`, `.DS_Store`). Where metadata is left for another night, so are the files that it
may name.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from cl_steps.data import metadata
from cl_steps.data.captions import file_of
from cl_steps.data.landing import Landing, with_digest
from cl_steps.data.quarantine import Quarantined, Unusable, printable
from cl_steps.data.sidecars import Claim, Sidecars
from cl_steps.landing import names
from cl_steps.landing.entries import Entry

MAX_TOLD = 100_000
"""So many bad lines are told one by one; the others are told once a file."""


def claims_of(landing: Landing) -> list[Claim]:
    """One claim a file, sorted by name (an empty one where nothing speaks of it); bad lines go to `landing.refused`.

    What is metadata, a caption, hidden or left is none, and counted there.
    """
    sources, sidecars, claims = _readable(landing), Sidecars.of(landing), _Claims(landing)
    num_read = sum(claims.read(source) for source in sources)
    unread = {_folder(name) for name in landing.left if names.is_metadata(name)}
    num_hidden, found = 0, []
    for name in sorted(landing.files.keys() - set(sources) - sidecars.names):
        claim = claims.found.get(name)
        if claim is None and landing.files[name].is_hidden:
            num_hidden += 1
        elif claim is None and unread and not unread.isdisjoint(_folders(name)):
            landing.leave(name, "metadata")
        elif complete := sidecars.completed(claim or Claim(name, {})):
            found.append(complete)
        else:
            landing.leave(name, "metadata")
    num_read -= _blame_wordless(landing, claims.wordless, found)
    landing.landed = replace(
        landing.landed,
        metadata=num_read + len(sidecars.names),
        hidden=num_hidden,
        repeated=sidecars.num_repeated,
        by_class=sidecars.num_by_class,
    )
    return found


def _blame_wordless(landing: Landing, wordless: Mapping[str, str], found: Iterable[Claim]) -> int:
    """Refuse the metadata files whose pictures have no caption since no line of the file has one; how many they are."""
    blamed = {claim.source for claim in found if claim.source in wordless and not claim.has_text and not claim.fault}
    for source in sorted(blamed):
        reason = f"no line of it holds a caption: its columns are {wordless[source]}, and one must be called text"
        landing.refuse(source, Unusable("bad_header", reason))
    return len(blamed)


def _readable(landing: Landing) -> list[str]:
    """The metadata files, sorted by name; the largest are left where all have more lines than may be read."""
    sources = {name: entry.num_bytes for name, entry in landing.files.items() if entry.is_metadata}
    remaining = landing.limits.max_metadata_lines
    if sum(sources.values()) > remaining:  # a line has a byte at least
        for name in sorted(sources, key=lambda name: (sources[name], name)):
            num_lines = _num_lines(landing, name)
            if num_lines > remaining:
                landing.leave(name, "metadata")
                del sources[name]
            else:
                remaining -= num_lines
    return sorted(sources)


def _num_lines(landing: Landing, source: str) -> int:
    try:
        return landing.read(source).count(b"\n") + 1
    except Unusable:
        return 0


class _Claims:
    """The claims so far, by file; the first line of a file counts."""

    def __init__(self, landing: Landing) -> None:
        self.found: dict[str, Claim] = {}
        self.wordless: dict[str, str] = {}
        self._landing = landing
        self._num_bad = 0

    def read(self, source: str) -> bool:
        """Enter what the lines of a metadata file say; False where it cannot be read as a whole."""
        num_before, first_untold, has_text, columns = self._num_bad, 0, False, ""
        try:
            for line in metadata.lines_of(source, self._landing.read(source)):
                self._enter(source, line)
                has_text, columns = has_text or "text" in line.values, columns or line.columns
                if self._num_bad > MAX_TOLD and not first_untold:
                    first_untold = line.number
        except Unusable as fault:
            self._landing.refuse(source, fault)
            return False
        if columns and not has_text:
            self.wordless[source] = columns
        if first_untold:
            self._sum_up(source, first_untold, self._num_bad - max(num_before, MAX_TOLD))
        return True

    def _enter(self, source: str, line: metadata.Line) -> None:
        try:
            file = self._file_of(line, _folder(source))
        except Unusable as fault:
            self._num_bad += 1
            if self._num_bad <= MAX_TOLD:
                found = Quarantined(f"{printable(source)}:{line.number}", fault.code, fault.reason, content=line.raw)
                self._landing.refused.append(with_digest(found, line.raw))
        else:
            if file in self._landing.files:
                self.found[file] = Claim(file, line.values, source)

    def _file_of(self, line: metadata.Line, folder: str) -> str:
        """The file that a line speaks of; one that is left, or that nobody saw, has its turn another night."""
        if line.fault:
            raise line.fault
        name = file_of(line.values, folder)
        landing = self._landing
        there = (form for form in _forms(name) if form in landing.files or form in landing.left)
        file = next(there, None)
        if file is None and not landing.passed.keys().isdisjoint(_forms(name)):
            raise Unusable("no_image", "the line names what is no image: remove the line")
        if file is None and landing.landed.whole:
            raise Unusable("missing_file", f"there is no file {printable(name)!r}: add it or remove the line")
        if file and (names.is_metadata(file) or Entry(file).is_sidecar):
            raise Unusable("no_image", "the line names metadata or a caption and no image: remove the line")
        if file in self.found:
            raise Unusable("duplicate_line", "an earlier line names the same file, and counts: remove one")
        return file or ""

    def _sum_up(self, source: str, number: int, count: int) -> None:
        reason = f"{count} lines from here on cannot be used: mend the file"
        self._landing.refused.append(Quarantined(f"{printable(source)}:{number}", "bad_line", reason))


def _forms(name: str) -> Iterator[str]:
    """A name, and how else its accents may be encoded: macOS writes them decomposed."""
    yield name
    yield unicodedata.normalize("NFC", name)
    yield unicodedata.normalize("NFD", name)


def _folder(name: str) -> str:
    return str(PurePosixPath(name).parent)


def _folders(name: str) -> Iterator[str]:
    return map(str, PurePosixPath(name).parents)
