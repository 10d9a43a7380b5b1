"""JUnit XML: read from a suite that is not trusted, and written as one file without times, hosts or paths."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree
from xml.parsers import expat

Outcome = Literal["passed", "failed", "error", "skipped"]

MAX_BYTES = 8 * 2**20
MAX_CASES = 2000
MAX_DEPTH = 16
MAX_CHARACTERS = 4000
_OUTCOMES: Mapping[str, Outcome] = {"failure": "failed", "error": "error", "skipped": "skipped"}
_ADDRESS = re.compile(r"0x[0-9a-f]{6,16}")
_UNPRINTABLE = re.compile("[^\t\n -~\u00a0-\ud7ff\ue000-\ufffd]")


@dataclass(frozen=True)
class Case:
    """One test: where it is, its name, how it ended, and what it said (a first line, and all)."""

    place: str
    name: str
    outcome: Outcome
    message: str = ""
    text: str = ""

    @property
    def failed(self) -> bool:
        """Whether it counts against the candidate."""
        return self.outcome in ("failed", "error")


def read_cases(path: Path, room: str) -> tuple[Case, ...] | None:
    """The cases of a JUnit file, `room` taken out of their texts; None where it is missing, too large or no JUnit."""
    try:
        content = plain_bytes(path, MAX_BYTES)
        _refuse_types(content)
        found = list(ElementTree.fromstring(content).iter("testcase"))  # noqa: S314  entities are refused above
    except (OSError, ValueError, expat.ExpatError, ElementTree.ParseError):
        return None
    return tuple(_case(element, room) for element in found[:MAX_CASES])


def plain_bytes(path: Path, most: int) -> bytes:
    """The bytes of a plain file, which nobody's pipe, link or device stands for; raises OSError or ValueError."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as stream:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > most:
            raise ValueError("no plain file, or too large")
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError("it grew")
    return content


def _refuse_types(content: bytes) -> None:
    """Raise where a document has a type, and so entities, in whatever encoding, or is nested as pytest nests none."""
    depth = 0

    def refuse(*_: object) -> None:
        raise ValueError("pytest writes no document types, and nests nothing")

    def enter(*_: object) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            refuse()

    def leave(_: object) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = enter, leave
    parser.Parse(content, True)


def write_junit(path: Path, suites: Mapping[str, tuple[Case, ...]]) -> None:
    """Write suites as one file; the same cases give the same bytes."""
    root = ElementTree.Element("testsuites", name="retain gate")
    for name, cases in suites.items():
        suite = ElementTree.SubElement(root, "testsuite", {"name": name} | _counts(cases))
        for case in cases:
            _append(suite, case)
    ElementTree.indent(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _case(element: ElementTree.Element, room: str) -> Case:
    said = next((child for child in element if child.tag in _OUTCOMES), None)
    place, name = (clean(element.get(key, ""), room) for key in ("classname", "name"))
    if said is None:
        return Case(place, name, "passed")
    return Case(place, name, _OUTCOMES[said.tag], clean(said.get("message", ""), room), clean(said.text or "", room))


def clean(text: str, room: str = "") -> str:
    """A stranger's text without what changes from run to run, and without what XML or a terminal would stumble over."""
    return _UNPRINTABLE.sub("?", _ADDRESS.sub("0x...", text.replace(room, "")))[:MAX_CHARACTERS]


def _counts(cases: tuple[Case, ...]) -> dict[str, str]:
    outcomes: list[str] = [case.outcome for case in cases]
    names = {"failures": "failed", "errors": "error", "skipped": "skipped"}
    return {"tests": str(len(cases))} | {key: str(outcomes.count(value)) for key, value in names.items()}


def _append(suite: ElementTree.Element, case: Case) -> None:
    element = ElementTree.SubElement(suite, "testcase", classname=clean(case.place), name=clean(case.name))
    for tag, outcome in _OUTCOMES.items():
        if case.outcome == outcome:
            ElementTree.SubElement(element, tag, message=clean(case.message)).text = clean(case.text)
