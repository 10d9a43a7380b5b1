"""What cannot be used is set aside with a stable code and one plain sentence; nothing that arrived is lost silently.

Codes, by what is at fault:
    the file      symlink, not_a_file, bad_name, unreadable, too_deep, too_large, no_caption
    an archive    bad_archive, no_images, archive_too_large
    a line        bad_header, bad_line, not_utf8, no_file_name, unsafe_path, missing_file, no_image,
                  duplicate_line, bad_type
    the caption   no_caption, empty_caption, long_caption, bad_caption, bad_slice, bad_fact, bad_type,
                  wrong_licence, wrong_consent, consent_ended
    the image     empty_file, not_an_image, not_readable, damaged, too_many_pixels, too_small, extreme_shape, animated,
                  cmyk, sixteen_bit, colour_mode, transparent
    the asset     caption_conflict, withdrawn
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass, field


class Unusable(ValueError):
    """A fault of one file or one line: it is quarantined and the others go on; never seen by a person as an error."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, order=True)
class Quarantined:
    """One thing set aside: a file, or a line of a metadata file (`metadata.jsonl:12`).

    `file` is its name as printable text, `reason` says what to do, `sha256` is "" where the bytes were not read and
    `num_bytes` is the size. Where its bytes are: `content` (of a line), else the file `origin` of the landing.
    """

    file: str
    code: str
    reason: str
    sha256: str = ""
    num_bytes: int = 0
    origin: str = field(default="", compare=False)
    content: bytes = field(default=b"", compare=False, repr=False)

    @property
    def key(self) -> str:
        """16 hexadecimal digits that tell it again in a later night, as long as nobody touched it."""
        return hashlib.sha256(f"{self.file}\0{self.sha256}\0{self.code}".encode()).hexdigest()[:16]

    def row(self) -> dict[str, str | int]:
        """As a line of `quarantine.jsonl`."""
        return {
            "file": self.file,
            "sha256": self.sha256,
            "code": self.code,
            "reason": self.reason,
            "bytes": self.num_bytes,
        }


def printable(name: str) -> str:
    """A hostile name as plain text: what is no printable character is written as its escape, `\\x1b`."""
    return "".join(_shown(character) for character in name)


def _shown(character: str) -> str:
    if unicodedata.category(character)[0] in "CZ" and character != " ":
        return character.encode("unicode_escape").decode("ascii")
    return character
