"""What is wrong with a document that lasts; and its shape as a JSON Schema, for whoever reads a line without Retain.

`retain verify` asks for faults, and so does whatever writes to main: what verify would refuse is never written. The
models of this folder decide; `python -m cl_steps.ledger.schemas` makes the files in `schemas/` from them, and a test
holds them equal. More keys than a schema names are allowed. Old shapes stay: `record-1` is still read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cl_steps.documents import Json, Unreadable, read_json
from cl_steps.errors import RetainError
from cl_steps.ledger.champion import CHAMPION, Champion
from cl_steps.ledger.events import KINDS, OtherEvent, model_of
from cl_steps.ledger.lasting import Lasting, WrongShape, number_of
from cl_steps.ledger.names import version_file
from cl_steps.ledger.record import OPTIONAL_SINCE, RECORD_SCHEMA, SINCE, Record
from cl_steps.ledger.reports import REPORT_SCHEMA, Report

FOLDER = Path(__file__).with_name("schemas")
DRAFT = "https://json-schema.org/draft/2020-12/schema"
UNSAID = ("title", "default", "description", "additionalProperties")
"""What pydantic says beside the shape itself; where it is `true`, more keys are allowed."""


def record_fault(document: Any) -> str | None:
    """What is wrong with the shape of a version's record, in words; None where nothing is."""
    known = number_of(document) in range(1, RECORD_SCHEMA + 1)
    return _fault(Record, document) if known else _unknown("record")


def event_fault(document: Any) -> str | None:
    """What is wrong with the shape of an event, in words; None where nothing is."""
    model = model_of(document.get("kind") if isinstance(document, Mapping) else None)
    return _unknown("event") if model is OtherEvent else _fault(model, document)


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
        return _fault(Champion, document)
    if folder == "events":
        fault = event_fault(document)
        named = fault or f"events/{document.get('id', name.removesuffix('.json'))}.json"
    else:
        fault = record_fault(document)
        named = fault or version_file(str(document.get("version")))
    return fault or (None if named == path else f"it says that it is {named}")


def _unknown(what: str) -> str:
    return f"it is no {what} of a kind that this version of retain knows"


def _fault(model: type[Lasting], document: Any) -> str | None:
    try:
        model.from_document(document)
    except WrongShape as error:
        return str(error)
    return None


def schemas() -> dict[str, dict[str, Any]]:
    """Every shape as a JSON Schema, by the name of its file."""
    found = {f"event-{kind}": _schema(model) for kind, model in KINDS.items()}
    found |= {"champion": _schema(Champion), f"report-{REPORT_SCHEMA}": _schema(Report)}
    found |= {f"record-{number}": _record_schema(number) for number in range(1, RECORD_SCHEMA + 1)}
    return {name: {"$schema": DRAFT, "$id": f"urn:retain:schema:{name}", **schema} for name, schema in found.items()}


def write_schemas() -> None:
    """Write `schemas/` anew."""
    for name, schema in schemas().items():
        (FOLDER / f"{name}.json").write_text(f"{json.dumps(schema, indent=2)}\n", encoding="utf-8")


def _schema(model: type[Lasting]) -> dict[str, Any]:
    said = model.model_json_schema(by_alias=True)
    shape = _plain(said, said.get("$defs", {}))
    return {"title": str(model.__doc__).partition("\n")[0].removesuffix("."), **shape}


def _record_schema(number: int) -> dict[str, Any]:
    """The shape of a record with that number: without the keys that came later."""
    shape = _schema(Record)
    since = {**SINCE, **OPTIONAL_SINCE}
    own = {key for key in shape["properties"] if since.get(key, 1) <= number}
    shape["properties"] = {key: shape["properties"][key] for key in shape["properties"] if key in own}
    shape["properties"]["schema"] = {"const": number}
    shape["required"] += [key for key in SINCE if key in own]
    learnt = shape["then"]["properties"]
    shape["then"]["properties"] = {key: learnt[key] for key in learnt if key in own}
    return shape


def _plain(said: Any, parts: Json) -> Any:
    """What pydantic says of a shape, each part where it stands, and without what says nothing of the shape."""
    if isinstance(said, list):
        return [_plain(each, parts) for each in said]
    if not isinstance(said, dict):
        return said
    if "$ref" in said:
        return _plain(parts[said["$ref"].rpartition("/")[2]], parts)
    kept = {
        key: value for key, value in said.items() if key != "$defs" and (key not in UNSAID or isinstance(value, dict))
    }
    if "const" in kept or "enum" in kept:
        kept.pop("type", None)
    if keys := kept.pop("patternProperties", None):
        [(pattern, values)] = keys.items()
        kept |= {"propertyNames": {"pattern": pattern}, "additionalProperties": values}
    if "properties" in kept:
        kept["properties"] = {key: _plain(value, parts) for key, value in kept["properties"].items()}
    return {key: value if key == "properties" else _plain(value, parts) for key, value in kept.items()}


if __name__ == "__main__":
    write_schemas()
