"""The JSON Schemas that are shipped are the models' own, and ask of every document what the models ask."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from cl_steps.errors import IntegrityError, RetainError
from cl_steps.ledger.champion import Champion, champion_bytes, parse_champion
from cl_steps.ledger.events import Event, event_bytes, event_moment, event_of, event_path, parse_event
from cl_steps.ledger.lasting import WrongShape
from cl_steps.ledger.record import RECORD_SCHEMA, Record, parse_record, record_bytes
from cl_steps.ledger.schemas import FOLDER, event_fault, record_fault, refuse_faults, schemas
from tests.lasting import COMMIT, MD5, report_fault, whole_champion, whole_event, whole_record

DIR, SHA256, AT = f"{MD5}.dir", "0" * 64, "2026-11-20T02:00:00+00:00"
REBASE = {"event": "e", "before": DIR, "after": DIR}
BATCH = {"runs": ["r-1"], "assets": 3, "digest": "d", "of": None}
INTAKE = {"md5": DIR, "assets": 3, "quarantined": 1, "quarantine_keys": ["k"], "slices": {"old": 3}}
TRIGGER = {"kind": "schedule", "by": "", "reason": "", "set": {"a.b": 1}, "force": False}
STAGE = {"deps": [{"path": "state/base", "md5": DIR}], "outs": [{"path": "x", "md5": MD5}], "params": {}}
LEARNT = {
    "version": "v2",
    "parent": "v1",
    "run": "r-1",
    "approval": {"by": "a", "reason": "b", "at": AT, "answer": "yes", "through": "c"},
    "stages": {"ingest": STAGE},
    "reports": {"ingest": {"figures": {"batch": {"runs": ["r-1"]}}, "verdict": "ok", "why": ""}},
    "slices": {"old": {"loss": 0.5}},
    "seconds": 1.5,
    "gpu_seconds": 0,
    "times": {},
}
THIRD = {
    "files": {"adapter/x": SHA256, "base/y": SHA256},
    "rebase": REBASE,
    "begun": {"commit": COMMIT, "main": COMMIT},
    "judged": {"gate": "{}"},
    "custody": "separate",
}
DOCUMENTS: dict[str, dict[str, Any]] = {
    "champion": {**whole_champion("v1"), "slices": ["a", "b"], "anchors": {"a": "v1"}},
    "report-1": {
        "schema": 1, "step": "gate", "run": "r-1", "status": "done", "code": SHA256, "verdict": "promote", "why": "",
        "figures": {},
    },
    "event-run": whole_event({
        "kind": "run", "run": "r-1", "outcome": "promoted", "version": "v2", "intake": INTAKE, "batch": BATCH,
        "trigger": TRIGGER, "rebase": REBASE, "seconds": 1.5, "gpu_seconds": 0, "drift": None, "gate": "promote",
    }),
    "event-answer": whole_event({"kind": "answer", "run": "r", "answer": "yes", "by": "a", "reason": "b"}),
    "event-rollback": whole_event({"kind": "rollback", "version": "v1", "lineage": ["v1"], "left": ["v2"]}),
    "event-withdrawal": whole_event({
        "kind": "withdrawal", "assets": [{"sha256": SHA256, "dhash": "0", "intake": None, "copy": False}],
        "replaced": {DIR: {"md5": DIR, "size": 1, "nfiles": 1}}, "erased": [MD5],
    }),
    "event-rebase": whole_event({"kind": "rebase", "run": "r"}),
    "event-prune": whole_event({"kind": "prune", "runs": {"r": COMMIT}, "days": 1.5}),
    "event-migration": whole_event({"kind": "migration"}),
    "record-1": whole_record({**LEARNT, "schema": 1}),
    "record-2": whole_record({**LEARNT, "schema": 2, "files": THIRD["files"]}),
    "record-3": whole_record({**LEARNT, **THIRD, "schema": 3}),
}  # fmt: skip
FIRST = whole_record({"schema": 3, "version": "v1", "begun": None, "judged": {}, "custody": None})
WRONG = (None, True, 2, -1, "", "x", "0" * 65, "v0", f"{SHA256}\n", [], ["x", "x"], {}, {"x": None}, "promoted", 99)


def fault(name: str, document: Any) -> str | None:
    """What the models find."""
    if name == "champion":
        try:
            Champion.from_document(document)
        except WrongShape as error:
            return str(error)
        return None
    asked: dict[str, Callable[[Any], str | None]] = {
        "event": event_fault,
        "record": record_fault,
        "report": report_fault,
    }
    return asked[name.partition("-")[0]](document)


def validator(name: str) -> Draft202012Validator:
    """A schema that is shipped; the end of a pattern is JSON Schema's, and not Python's, which takes a line's end."""
    checker = FormatChecker(())
    checker.checks("date-time", raises=ValueError)(
        lambda value: not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None
    )
    text = (
        (FOLDER / f"{name}.json")
        .read_text(encoding="utf-8")
        .replace('$"', '\\\\Z"')
        .replace('"\\\\Zschema', '"$schema')
    )
    return Draft202012Validator(json.loads(text), format_checker=checker)


def changed(value: Any) -> Iterator[Any]:
    """The value with one thing in it left out, or another in its place."""
    if isinstance(value, dict):
        for key, part in value.items():
            rest = {name: other for name, other in value.items() if name != key}
            yield rest
            yield from ({**rest, key: other} for other in (*WRONG, *changed(part)))
        yield {**value, "something new": [1]}
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield value[:place] + value[place + 1 :]
            yield from ([*value[:place], other, *value[place + 1 :]] for other in (*WRONG, *changed(part)))


def test_the_schemas_that_are_shipped_are_the_models() -> None:
    assert {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.json")} == schemas()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_models_and_schemas_find_the_same(name: str) -> None:
    document, shape = DOCUMENTS[name], validator(name)
    assert fault(name, document) is None
    odd = [FIRST] if name == "record-3" else []
    for other in (document, *odd, *changed(document), *(each for first in odd for each in changed(first))):
        kind = other.get("kind", other.get("schema"))
        if name.startswith(("event", "record")) and (
            kind in (None, [], {}) or f"{name.partition('-')[0]}-{kind}" != name
        ):
            continue
        assert (fault(name, other) is None) == shape.is_valid(other), json.dumps(other)


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if "-" in name])
def test_what_was_read_is_what_is_given_back_key_by_key(name: str) -> None:
    document = {**DOCUMENTS[name], "later": {"of": [1, 2.5, None]}}
    if name.startswith("event"):
        found: Event | Record = event_of(document)
    elif name.startswith("record"):
        found = Record.from_document(document)
    else:
        return
    assert found.document() == document


def test_a_champion_is_read_as_it_was_written() -> None:
    champion = Champion.from_document(DOCUMENTS["champion"])
    assert parse_champion(champion_bytes(champion)) == champion


def test_an_old_record_has_what_later_ones_say_more_of_as_nothing() -> None:
    old = Record.from_document(DOCUMENTS["record-1"])
    assert (old.number, old.parent) == (2, "v1")
    assert (old.files, old.main, old.begun, old.judged, old.custody) == ({}, None, None, {}, None)
    assert parse_record("versions/v0002.json", record_bytes(old)) == old
    assert "files" not in json.loads(record_bytes(old))
    assert RECORD_SCHEMA == 3


def test_what_is_wrong_is_said_with_its_place() -> None:
    assert record_fault({**FIRST, "digests": {**FIRST["digests"], "state": {"adapter": 1}}}) == (
        "digests/state/adapter: Input should be a valid string"
    )
    assert record_fault({**FIRST, "version": "v2"}) == "the document: only v1 has no parent"
    run = DOCUMENTS["event-run"]
    assert event_fault({**run, "at": "2026-11-20T02:00:00"}) == "at: a moment needs its time zone"
    assert [str(event_fault({**run, "seconds": odd})).partition(":")[0] for odd in (math.inf, math.nan)] == [
        "seconds/int", "seconds/int",
    ]  # fmt: skip
    assert record_fault({**FIRST, "schema": 4}) == "it is no record of a kind that this version of retain knows"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"version": "v1"}', b"[" * 100_000])
def test_a_champion_that_names_no_version_is_none(content: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"state/champion\.json names no version"):
        parse_champion(content)


def test_of_what_is_written_on_main_only_what_lasts_is_looked_at() -> None:
    champion = json.dumps(DOCUMENTS["champion"]).encode()
    refuse_faults({"state/champion.json": champion, "state/other.json": b"{", "versions/v0001.sig": b"{", "x": None})
    for path in ("state/champion.json", "versions/v0001.json", "events/x.json"):
        with pytest.raises(RetainError, match=path):
            refuse_faults({path: b"{}"})


@pytest.mark.parametrize("microsecond", [0, 7, 999_999])
def test_an_events_file_is_named_after_its_moment(microsecond: int) -> None:
    at = datetime(2026, 11, 20, 2, 3, 4, microsecond, tzinfo=UTC)
    path = event_path("run", "r-1", at)
    assert path == f"events/20261120T020304{microsecond:06d}Z-run-r-1.json"
    assert event_moment(path.removeprefix("events/")) == at
    assert event_moment("yesterday-run-r-1.json") is None


def test_events_of_a_kind_that_nobody_knows_yet_are_read() -> None:
    found = parse_event("x.json", json.dumps({"schema": 2, "kind": "anniversary", "cake": True}).encode())
    assert found.document() == {"schema": 2, "kind": "anniversary", "cake": True}


def test_what_is_no_number_is_never_written_as_nothing() -> None:
    """pydantic would write null in its place."""
    event = event_of({**DOCUMENTS["event-prune"], "later": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        event_bytes(event)
