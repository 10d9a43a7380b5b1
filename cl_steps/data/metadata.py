"""`metadata.jsonl` and `metadata.csv` as lines, each with its own fault if it has one: the others go on."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from cl_steps.data.captions import KEYS
from cl_steps.data.quarantine import Unusable
from cl_steps.documents import Json

MAX_LINE_BYTES = 4 * 2**20
"""A line of JSON above this is not parsed: it would take up to fifty times as much memory."""

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Line:
    """One line (of CSV: one row) of a metadata file: its number from 1, its bytes, its values or its fault."""

    number: int
    raw: bytes
    values: Json = field(default_factory=dict)
    fault: Unusable | None = None


def lines_of(name: str, content: bytes) -> Iterator[Line]:
    """The lines of a metadata file, blank ones left out; raises Unusable where the whole file cannot be read."""
    if content.startswith(_UTF16):
        raise Unusable("not_utf8", "the file is in UTF-16: save it as UTF-8")
    content = content.removeprefix(codecs.BOM_UTF8)
    return _csv_lines(content) if name.endswith(".csv") else _json_lines(content)


def _json_lines(content: bytes) -> Iterator[Line]:
    for number, line in enumerate(io.BytesIO(content), start=1):
        if (raw := line.removesuffix(b"\n")).strip():
            try:
                yield Line(number, raw, values=_json_object(raw))
            except Unusable as fault:
                yield Line(number, raw, fault=fault)


def _json_object(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_LINE_BYTES:
        raise Unusable("bad_line", f"the line has {len(raw)} bytes: shorten it to {MAX_LINE_BYTES}")
    try:
        values = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise _not_utf8() from None
    except (ValueError, RecursionError):
        raise Unusable("bad_line", "the line is not valid JSON: mend it, one object a line") from None
    if not isinstance(values, dict):
        raise Unusable("bad_line", 'the line is no JSON object: write it as {"file_name": ..., "text": ...}')
    return _known(values)


def _known(values: Json) -> dict[str, Any]:
    """What we read of a line; of lists and objects, which are wrong wherever we look for a text, only that they are."""
    found = {key: values[key] for key in KEYS if key in values}
    return {key: type(value)() if isinstance(value, list | dict) else value for key, value in found.items()}


def _csv_lines(content: bytes) -> Iterator[Line]:
    """Rows of comma-separated values; an undecodable byte spoils its own row only."""
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8", "surrogateescape", newline="")
    rows = _csv_rows(text)
    header = next((row.values for row in rows if row.values), [])
    if "file_name" not in header:
        raise Unusable("bad_header", "the first line does not name the columns: it must hold file_name and text")
    return (_csv_line(row, header) for row in rows)


@dataclass(frozen=True)
class _Row:
    """A row of CSV: its values (None: it cannot be parsed), the number of its first line, and its text."""

    values: list[str] | None
    number: int
    text: str


def _csv_rows(lines: Iterable[str]) -> Iterator[_Row]:
    taken: list[str] = []
    reader = csv.reader(_noting(lines, taken), strict=True)
    while True:
        number = reader.line_num + 1
        taken.clear()
        try:
            row: list[str] | None = next(reader)
        except StopIteration:
            return
        except csv.Error:
            row = None
        if row != []:
            yield _Row(row, number, "".join(taken))


def _noting(lines: Iterable[str], taken: list[str]) -> Iterator[str]:
    for line in lines:
        taken.append(line)
        yield line


def _csv_line(row: _Row, header: list[str]) -> Line:
    raw = row.text.encode("utf-8", "surrogateescape")
    if row.values is None or len(row.values) != len(header):
        fault = Unusable("bad_line", f"the row is not one of {len(header)} comma-separated values: check its quotes")
        return Line(row.number, raw, fault=fault)
    if any("\udc80" <= character <= "\udcff" for value in row.values for character in value):
        return Line(row.number, raw, fault=_not_utf8())
    return Line(row.number, raw, values=_known(dict(zip(header, row.values, strict=True))))


def _not_utf8() -> Unusable:
    return Unusable("not_utf8", "the line is not UTF-8: save the file as UTF-8")
