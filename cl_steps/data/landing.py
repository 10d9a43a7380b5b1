"""What lies in a landing, where strangers put it: files that may be looked at, and everything else with its reason.

A name is only ever looked up in the list of what was found (`cl_steps.landing`) and never opened as a path of ours.
Everything that was found is counted in exactly one place, so that the sum is right whatever arrived.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from cl_steps import digests
from cl_steps.config import Ingest
from cl_steps.data.captions import fault_of_name
from cl_steps.data.quarantine import Quarantined, Unusable, printable
from cl_steps.landing.bounds import within
from cl_steps.landing.entries import Changed, Entry, Source, TooLarge
from cl_steps.landing.names import NO_PICTURES

REASONS = {
    "symlink": "this is a link: put the file itself here",
    "not_a_file": "this is no plain file: remove it",
    "unreadable": "the file or folder cannot be read: check its permissions",
    "too_deep": "it lies below more folders than ingest.max_depth: move it up",
    "bad_archive": "the archive is damaged, or holds more than may be looked at: pack it again, in smaller parts",
    "no_images": "the Parquet file has no column with the bytes of images, as Hugging Face's Image has it",
    "archive_too_large": "the archive is larger than ingest.max_archive_bytes: pack it in smaller parts",
    "bad_name": "the name has an empty part, . or .., or says a version, or is there twice: rename it",
}


UNFINISHED = ("damaged", "empty_file", "not_an_image")
"""What a file looks like of which only the beginning has arrived."""
LEFT = {
    "files": "{} files more than ingest.max_files",
    "bytes": "{} files more than ingest.max_landing_bytes",
    "room": "{} files more than the disk here has room for",
    "metadata": "{} files of, or waiting for, metadata beyond ingest.max_metadata_bytes or max_metadata_lines",
    "source": "{} files of sources that brought more than ingest.max_new_per_source",
    "changed": "{} files that changed or went while they were read, or may still be on their way",
    "away": "{} files that could not be read now",
}
"""What is left for another night, by why."""


@dataclass(frozen=True)
class Landed:
    """How much was found, and what became of it before any picture was looked at.

    `arrived` counts all; of it `metadata` was read (lines, and captions beside pictures), `hidden` begins with a dot
    and is named by no line, `passed` is no picture, by kind, and `left` has its turn another night, by why. The rest
    was quarantined or is in the intake's counts. In kohya's folders `repeated` pictures were to be repeated, and
    `by_class` have no caption but the folder's name. `lines` of metadata were
    quarantined, too, which are no files; the bytes of `not_kept` things in quarantine are not kept. Not `whole`: there
    is more than was counted. `digest` is that of the list of all, where a run copied it.
    """

    arrived: int = 0
    metadata: int = 0
    hidden: int = 0
    passed: Mapping[str, int] = field(default_factory=dict)
    left: Mapping[str, int] = field(default_factory=dict)
    repeated: int = 0
    by_class: int = 0
    lines: int = 0
    not_kept: int = 0
    whole: bool = True
    digest: str = ""

    def words(self) -> Iterator[str]:
        """What was not looked at, or not kept, for a person."""
        for kind, count in self.passed.items():
            yield f"passed over {count} {NO_PICTURES[kind]}"
        if self.repeated:
            yield f"{self.repeated} pictures lie in folders with repeats, which are not taken over: slices share steps"
        if self.by_class:
            yield f"{self.by_class} pictures have no caption but the name of their folder"
        for why, count in self.left.items():
            yield f"{LEFT[why].format(count)}: left for another night"
        if not self.whole:
            yield "the landing holds still more, which nobody counted: take away what is taken in"
        if self.not_kept:
            yield f"of {self.not_kept} of what was quarantined no bytes are kept (ingest.max_quarantine_bytes)"


@dataclass
class Landing:
    """A landing as it was found: its files by name, those that are left and why, and what cannot be used and why.

    `legible` are the files and those that only their name rules out; `passed` are of a kind that holds no picture.
    """

    source: Source
    limits: Ingest
    landed: Landed
    files: dict[str, Entry] = field(default_factory=dict)
    legible: dict[str, Entry] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    passed: dict[str, str] = field(default_factory=dict)
    refused: list[Quarantined] = field(default_factory=list)

    @classmethod
    def of(cls, source: Source, limits: Ingest, run: str = "") -> Landing:
        """What lies in a landing, as far as it is within the limits; raises as `Source.listing` does."""
        listing = source.listing(limits)
        landing = cls(source, limits, Landed(arrived=len(listing.entries), whole=listing.whole, digest=listing.digest))
        for entry in within(listing.entries, limits, run):
            landing._enter(entry)
        return landing

    def read(self, name: str) -> bytes:
        """The bytes of a file; raises Unusable, also where it is another than it was."""
        entry = self.legible[name]
        limit = entry.limit(self.limits)
        try:
            return self.source.read(entry, limit)
        except TooLarge:
            knob = "max_metadata_bytes" if entry.is_metadata else "max_file_bytes"
            reason = f"the file is larger than {limit} bytes: make it smaller (ingest.{knob})"
            raise Unusable("too_large", reason) from None
        except Changed:
            reason = "the file changed while it was read: leave it until it is complete"
            raise Unusable("unreadable", reason) from None
        except OSError:
            raise Unusable("unreadable", "the file cannot be read: check its permissions") from None

    def refuse(self, name: str, fault: Unusable) -> None:
        """Put a file aside; its bytes, where they can be read, are kept by digest.

        One that looks cut short, and was changed just now, may still be on its way: it is left for another night.
        """
        if self.legible[name].young and fault.code in UNFINISHED and name in self.files:
            self.leave(name, "changed")
            return
        found = _quarantined(self.legible[name], fault)
        with suppress(Unusable):
            found = found if found.sha256 else with_digest(found, self.read(name))
        self.refused.append(found)

    def leave(self, name: str, why: str) -> None:
        """Leave a file for another night."""
        del self.files[name]
        self.left[name] = why

    def pass_over(self, name: str, kind: str) -> None:
        """Leave a file aside that holds no picture; `kind` is one of `names.NO_PICTURES`."""
        del self.files[name]
        self.passed[name] = kind

    def counted(self) -> Landed:
        """`landed` with what is known once all files were looked at."""
        lines = sum(not found.origin for found in self.refused)
        left, passed = (dict(sorted(Counter(found.values()).items())) for found in (self.left, self.passed))
        return replace(self.landed, lines=lines, left=left, passed=passed)

    def _enter(self, entry: Entry) -> None:
        if entry.fault not in ("", "too_large"):
            self.refused.append(_quarantined(entry, Unusable(entry.fault, REASONS[entry.fault])))
        elif entry.left:
            self.left[entry.name] = entry.left
        elif entry.no_picture:
            self.passed[entry.name] = entry.no_picture
        else:
            self.legible[entry.name] = entry
            if fault := fault_of_name(entry.name):
                self.refuse(entry.name, fault)
            else:
                self.files[entry.name] = entry


def with_digest(found: Quarantined, content: bytes) -> Quarantined:
    """The same with the digest of its bytes, by which they are kept."""
    return replace(found, sha256=digests.sha256(content), num_bytes=len(content))


def _quarantined(entry: Entry, fault: Unusable) -> Quarantined:
    name = entry.name or "."
    facts = {"origin": name, "sha256": entry.sha256, "num_bytes": entry.num_bytes}
    return Quarantined(printable(name), fault.code, fault.reason, **facts)  # type: ignore[arg-type]
