"""`metadata.jsonl` and `metadata.csv` as lines, each with its own fault if it has one: the others go on."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from cl_steps.data.captions import known
from cl_steps.data.quarantine import Unusable, printable
from cl_steps.documents import Json

MAX_LINE_BYTES = 4 * 2**20
"""A line of JSON above this is not parsed: it would take up to fifty times as much memory."""

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Line:
    """One line (of CSV: one row) of a metadata file: its number from 1, its bytes, its values or its fault.

    `columns` are the keys that it has, as a person is told of them.
    """

    number: int
    raw: bytes
    values: Json = field(default_factory=dict)
    fault: Unusable | None = None
    columns: str = ""


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
                values = json_object(raw)
                yield Line(number, raw, values=known(values), columns=_named(values))
            except Unusable as fault:
                yield Line(number, raw, fault=fault)


def json_object(raw: bytes) -> dict[str, Any]:
    """A JSON object that a stranger wrote; raises Unusable."""
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
    return values


def decoded(content: bytes) -> str:
    """The text of a file; raises Unusable where it is not UTF-8."""
    if content.startswith(_UTF16):
        raise Unusable("not_utf8", "the file is in UTF-16: save it as UTF-8")
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError:
        raise _not_utf8() from None


def _named(columns: Iterable[str]) -> str:
    """Columns as a person is told of them, not all of many."""
    return ", ".join(printable(column)[:40] for column in islice(columns, 12))


def _csv_lines(content: bytes) -> Iterator[Line]:
    """Rows of comma-separated values; an undecodable byte spoils its own row only."""
    first = content.lstrip()[:MAX_LINE_BYTES].split(b"\n", 1)[0]
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8", "surrogateescape", newline="")
    rows = _csv_rows(text, skips=b", " in first)  # who writes a blank after each comma means none
    header = next((row.values for row in rows if row.values), [])
    if "file_name" not in known(dict.fromkeys(header, "")):
        reason = (
            f"its columns are {_named(header)}, and none holds the files' names: the first line must name file_name"
        )
        raise Unusable("bad_header", f"{reason} and text, with commas between")
    return (_csv_line(row, header) for row in rows)


@dataclass(frozen=True)
class _Row:
    """A row of CSV: its values (None: it cannot be parsed), the number of its first line, and its text."""

    values: list[str] | None
    number: int
    text: str


def _csv_rows(lines: Iterable[str], *, skips: bool) -> Iterator[_Row]:
    taken: list[str] = []
    reader = csv.reader(_noting(lines, taken), strict=True, skipinitialspace=skips)
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
    return Line(row.number, raw, values=known(dict(zip(header, row.values, strict=True))), columns=_named(header))


def _not_utf8() -> Unusable:
    return Unusable("not_utf8", "the line is not UTF-8: save the file as UTF-8")
