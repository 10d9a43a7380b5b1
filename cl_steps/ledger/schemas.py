"""The shapes of what is written down for ever, as JSON Schemas in `schemas/`: records, events, reports of steps.

`retain verify` reads them, and so does whatever writes to main: what verify would refuse is never written. A shape
names what must be there and of which type; more keys are allowed. Old shapes stay: `record-1` is still read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

from cl_steps.documents import Unreadable, read_json
from cl_steps.errors import RetainError
from cl_steps.ledger.names import version_file
from cl_steps.ledger.shapes import FOLDER, shape

CHAMPION = "state/champion.json"


@cache
def shapes() -> frozenset[str]:
    """The names of all shapes."""
    return frozenset(path.stem for path in FOLDER.glob("*.json"))


def record_fault(document: Any) -> str | None:
    """What is wrong with the shape of a version's record, in words; None where nothing is."""
    return _fault(document, f"record-{_number(document)}")


def event_fault(document: Any) -> str | None:
    """What is wrong with the shape of an event, in words; None where nothing is."""
    kind = document.get("kind") if isinstance(document, Mapping) else None
    return _fault(document, f"event-{kind}")


def report_fault(document: Any) -> str | None:
    """What is wrong with the shape of a step's report, in words; None where nothing is."""
    return _fault(document, f"report-{_number(document)}")


def refuse_faults(files: Mapping[str, bytes | None]) -> None:
    """Raise RetainError where a file that is to be written on main is not what `retain verify` takes there."""
    for path, content in files.items():
        fault = _fault_of(path, content) if content is not None else None
        if fault:
            raise RetainError(
                f"{path} would not be as `retain verify` wants it ({fault}), so nothing was written: this is a bug of "
                "Retain's, please report it"
            )


def _fault_of(path: str, content: bytes) -> str | None:
    folder, _, name = path.partition("/")
    ours = path == CHAMPION or (folder in ("versions", "events") and name.endswith(".json"))
    if not ours or name.endswith(".intoto.json"):
        return None
    try:
        document = read_json(content)
    except Unreadable as error:
        return str(error)
    if path == CHAMPION:
        return _fault(document, "champion")
    if folder == "events":
        fault, named = event_fault(document), f"events/{document.get('id', name.removesuffix('.json'))}.json"
    else:
        fault, named = record_fault(document), version_file(str(document.get("version")))
    return fault or (None if named == path else f"it says that it is {named}")


def _number(document: Any) -> Any:
    return document.get("schema") if isinstance(document, Mapping) else None


def _fault(document: Any, name: str) -> str | None:
    if name not in shapes():
        return f"it is no {name.partition('-')[0]} of a kind that this version of retain knows"
    error = next(iter(_validator(name).iter_errors(document)), None)
    if error is None:
        return None
    place = "/".join(str(part) for part in error.absolute_path) or "the document"
    return f"{place}: {error.message:.120}"


@cache
def _validator(name: str) -> Any:
    from jsonschema import Draft202012Validator, FormatChecker

    checker = FormatChecker(())
    checker.checks("date-time", raises=ValueError)(_is_moment)
    return Draft202012Validator(shape(name), format_checker=checker)


def _is_moment(value: Any) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None
