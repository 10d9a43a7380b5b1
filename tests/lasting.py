"""Events and records of which a test says what it is about, and which have everything else that such a thing has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cl_steps.ledger.events import Event, event_of
from cl_steps.ledger.lasting import WrongShape
from cl_steps.ledger.reports import Report
from cl_steps.repository.mainline import Mainline

AT = "2026-11-20T02:00:00+00:00"
PERSON = {"id": "x", "by": "ops (claimed)", "through": "command line", "reason": "so they said"}
MD5, SHA256, COMMIT = "0" * 32, "0" * 64, "0" * 40
BASE = {"md5": f"{'1' * 32}.dir", "size": 1, "nfiles": 1}
KINDS: dict[str, dict[str, Any]] = {
    "run": {"trigger": {"kind": "schedule"}, "why": "", "version": None, "intake": None, "batch": None},
    "answer": {"through": "command line", "digest": "d"},
    "rollback": {**PERSON, "from": "v9", "left": [], "relearn": False},
    "withdrawal": {**PERSON, "source": None, "erase": False, "touched": {}, "replaced": {}, "erased": []},
    "prune": {"id": "x", "by": "ops (claimed)", "through": "command line"},
    "rebase": {**PERSON, "before": f"{'0' * 32}.dir", "after": BASE, "files": {"base/weights": "0" * 64}},
    "migration": {"id": "x", "by": "ops (claimed)", "through": "command line", "from": 1, "to": 2},
}
STATE = dict.fromkeys(("adapter", "replay", "reference", "global_eval", "anchors", "evaluation"), MD5)


def whole_event(said: Mapping[str, Any]) -> dict[str, Any]:
    """The event that says this, whole."""
    event = {"schema": 2, "at": AT, **KINDS[said["kind"]], **said}
    if event.get("batch"):
        event["batch"] = {"assets": 0, "digest": "d", **event["batch"]}
    return event


def event(**said: Any) -> Event:
    """The same as a model."""
    return event_of(whole_event(said))


def whole_record(said: Mapping[str, Any]) -> dict[str, Any]:
    """The record that says this, whole; of the first format, where it does not say another."""
    record: dict[str, Any] = {
        "schema": 1,
        "parent": None,
        "run": None,
        "created": AT,
        "trigger": {},
        "approval": None,
        "digests": {},
        "parameters": {"file": {}, "set": {}},
        "code": SHA256,
        "environment": {},
        "slices": {},
        **said,
    }
    record["trigger"] = {"kind": "schedule", "by": "", "reason": "", **record["trigger"]}
    digests = {"base": MD5, "extractor": MD5, **record["digests"]}
    record["digests"] = {**digests, "state": {**STATE, **digests.get("state", {})}}
    if record["parent"]:
        learnt = {"stages": {}, "reports": {}, "seconds": 0, "run": "r"}
        record = {**record, **{key: value for key, value in learnt.items() if not record.get(key)}}
        record["reports"] = {"ingest": {"figures": {}}, **record["reports"]}
        record["digests"] = {"batch": "d", "teacher": MD5, **record["digests"]}
    if record["schema"] > 1:
        record = {"main": COMMIT if record["parent"] else None, "files": {}, **record}
    return record


def documents(main: Mainline) -> list[dict[str, Any]]:
    """The records on main as JSON values."""
    return [record.document() for record in main.records()]


def whole_champion(version: str) -> dict[str, Any]:
    """What main says of a champion that knows no slice."""
    return {"version": version, "seed_plan": 1, "slices": [], "anchors": {}}


def report_fault(document: Any) -> str | None:
    """What is wrong with the shape of a step's report, in words; None where nothing is."""
    try:
        Report.from_document(document)
    except WrongShape as error:
        return str(error)
    return None


def read_json(main: Mainline, path: str) -> dict[str, Any]:
    """A JSON document of main, as it lies there."""
    return dict(json.loads(main.read(path) or b"{}"))
