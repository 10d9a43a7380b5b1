"""What a metadata line says of its image: read out of hostile JSON or CSV values, checked, brought to one form.

A caption is normalised (Unicode NFC, runs of white space as one blank, ends stripped), since these never carry
meaning. Control characters and those that override the direction of text are refused: they hide what a person reads.
So is what Unicode will never assign. Whatever else it may assign is text: no verdict depends on Python's tables.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from cl_steps.config import Ingest
from cl_steps.data.quarantine import Unusable
from cl_steps.documents import Json

KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "file_name": ("file_name", "filename", "file", "image", "image_path", "path"),
        "text": ("text", "caption", "prompt", "description", "image_description"),
        "slice": ("slice",),
        "source": ("source",),
        "licence": ("licence", "license"),
        "consent": ("consent",),
        "consent_until": ("consent_until",),
    }
)
"""What a line may say, and how else people call it; the first that holds something counts, the rest is not kept."""
DEFAULT_SLICE = "general"
SLICE = re.compile(r"[a-z0-9][a-z0-9-]{0,60}")
MAX_FACT_CHARACTERS = 500
MAX_NAME_CHARACTERS = 1000

_NO_SLICE = re.compile(r"[^a-z0-9]+")
_WHITE = re.compile(r"\s+")
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cs"})
_TURNS_DIRECTION = frozenset("\u202a\u202b\u202c\u202d\u202e")
"""Embeddings and overrides; isolates, which keep a foreign word apart, are how text should be written."""
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class Caption:
    """The words and facts that came with an image; absent facts are empty strings.

    `consent_until` is the last day of consent (ISO 8601).
    """

    text: str
    slice: str = DEFAULT_SLICE
    source: str = ""
    licence: str = ""
    consent: str = ""
    consent_until: str = ""


def caption_of(values: Json, limits: Ingest, today: str = "") -> Caption:
    """The checked caption of a metadata line; raises Unusable with the first fault found.

    What the line asks of licences and consent is checked too; consent that ended before `today` (a date) is none.

    Keys that we do not know are left alone, as the imagefolder convention has it.
    """
    facts = {key: _fact(values, key) for key in ("source", "licence", "consent")}
    until = _until(_fact(values, "consent_until"))
    text, slice_name = _text(values.get("text"), limits.max_caption_characters), _slice(values.get("slice"))
    _check_allowed("licence", facts["licence"], limits.licences, "licences")
    _check_allowed("consent", facts["consent"], limits.consents, "consents")
    if until and until < today:
        raise Unusable("consent_ended", f"consent to use the image ended on {until}: remove it from the landing")
    return Caption(text, slice_name, **facts, consent_until=until)


def _check_allowed(key: str, said: str, allowed: tuple[str, ...] | None, knob: str) -> None:
    if allowed is not None and said.casefold() not in map(str.casefold, allowed):
        told = f"its {key} is {said!r}" if said else f"it says no {key}"
        raise Unusable(f"wrong_{key}", f"{told}, and the line takes {', '.join(allowed)} only (ingest.{knob})")


def _until(value: str) -> str:
    """The day that ends a consent, as YYYY-MM-DD."""
    try:
        return date.fromisoformat(value).isoformat() if value else ""
    except ValueError:
        raise Unusable("bad_fact", "consent_until is no date: write it as 2027-12-31") from None


def known(values: Json) -> dict[str, Any]:
    """What we read of a line, under our names; of lists and objects, which are wrong for a text, only that they are."""
    given = {key.strip().lower(): value for key, value in values.items()}
    found = {}
    for key, names in KEYS.items():
        there = [given[name] for name in names if name in given]
        if there:
            value = next((value for value in there if value not in (None, "")), there[0])
            found[key] = type(value)() if isinstance(value, list | dict) else value
    return found


def slice_named(folder: str) -> str:
    """The slice that a folder's name becomes; the usual one where nothing of it is a letter or digit of ours."""
    return _NO_SLICE.sub("-", folder.lower()).strip("-")[:61].strip("-") or DEFAULT_SLICE


def file_of(values: Json, folder: str) -> str:
    """The path in the landing of the file that a line of a metadata file in `folder` names.

    Raises:
        Unusable: no name, no text, or a path that is absolute, leads upwards, or is written in Windows' way.
    """
    name = values.get("file_name")
    if name is None or name == "":
        raise Unusable("no_file_name", "the line names no file: give it the key file_name")
    if not isinstance(name, str):
        raise Unusable("bad_type", "file_name is no text: write the file's name in quotes")
    path = PurePosixPath(name)
    if (
        path.is_absolute()
        or ".." in path.parts
        or "\\" in name
        or _DRIVE.match(name)
        or len(name) > MAX_NAME_CHARACTERS
    ):
        reason = "file_name leaves the folder: write it relative to the metadata file, with /, and without .."
        raise Unusable("unsafe_path", reason)
    if not is_clean(name):
        raise Unusable("bad_name", "file_name holds control characters: rename the file")
    return str(PurePosixPath(folder) / path)


def fault_of_name(name: str) -> Unusable | None:
    """Why no line of metadata could name a file of this name, whatever it holds; None where one can."""
    if not is_clean(name):
        return Unusable("bad_name", "the name is not plain text: rename it")
    return Unusable("bad_name", "the name holds a \\, which no line can write: rename it") if "\\" in name else None


def is_clean(text: str) -> bool:
    """Whether a text holds nothing that hides or turns what a person reads."""
    if text.isascii():  # nearly all names: a million of them takes a second less
        return text.isprintable()
    return not any(map(_is_hidden, text))


def _is_hidden(character: str) -> bool:
    code = ord(character)
    never_assigned = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return never_assigned or character in _TURNS_DIRECTION or unicodedata.category(character) in _HIDDEN_CATEGORIES


def _text(value: Any, max_characters: int) -> str:
    if value is None:
        reason = (
            "the image has no caption: name it in metadata.jsonl with file_name and text, or put NAME.txt beside it"
        )
        raise Unusable("no_caption", reason)
    text = _normalised(value, "text", "bad_caption")
    if not text:
        raise Unusable("empty_caption", "the caption is empty: write what the image shows")
    if len(text) > max_characters:
        reason = (
            f"the caption has {len(text)} characters: shorten it to {max_characters} (ingest.max_caption_characters)"
        )
        raise Unusable("long_caption", reason)
    return text


def _slice(value: Any) -> str:
    if value is None or value == "":
        return DEFAULT_SLICE
    if not isinstance(value, str):
        raise Unusable("bad_type", "slice is no text: write one name in quotes")
    if not SLICE.fullmatch(value):
        raise Unusable("bad_slice", "slice must be of a-z, 0-9 and -, at most 61 characters: rename the slice")
    return value


def _fact(values: Json, key: str) -> str:
    value = values.get(key)
    text = "" if value is None else _normalised(value, key, "bad_fact")
    if len(text) > MAX_FACT_CHARACTERS:
        raise Unusable("bad_fact", f"{key} has {len(text)} characters: shorten it to {MAX_FACT_CHARACTERS}")
    return text


def _normalised(value: Any, key: str, code: str) -> str:
    if not isinstance(value, str):
        raise Unusable("bad_type", f"{key} is no text: write it in quotes")
    text = unicodedata.normalize("NFC", _WHITE.sub(" ", value).strip())
    if not is_clean(text):
        raise Unusable(code, f"{key} holds control characters: remove them")
    return text
