"""What made a version, as one document: everything that its record and main's events say of it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence

from cl_steps.config import Params
from cl_steps.documents import Document
from cl_steps.ledger.ancestors import nearest_first
from cl_steps.ledger.events import Event, RebaseEvent, RollbackEvent, RunEvent, WithdrawalEvent, parse_event
from cl_steps.ledger.names import version_file
from cl_steps.ledger.record import Record
from cl_steps.repository.mainline import Mainline
from cl_steps.trace.versions import (
    environment,
    flat,
    learning_of,
    parameters,
    records_of,
    resolve,
    stored,
)

MovingAct = RollbackEvent | RebaseEvent | WithdrawalEvent
"""What a person did that moved the line's state, or asked for it."""
SIGNATURES = {"record and adapter": ".sig", "provenance": ".intoto.json"}
TOUCHED = ("learnt", "descends", "replay", "evaluation", "reference")
"""How a withdrawal's report names versions."""
CHECK_KEYS = ("slice", "metric", "against", "kind", "estimate", "lower", "upper", "margin", "verdict", "note")


def lineage(main: Mainline, version: str) -> Document:
    """What made a version (`champion`: the champion); versions resolve through main's records, never through tags.

    Raises:
        UsageError: there is no such version.
        IntegrityError: an event on main is none.
    """
    records, events = records_of(main), list(_events(main))
    champion = main.champion().version
    name = resolve(records, champion if version == "champion" else version)
    record = records[name]
    return {
        "version": name,
        "champion": champion,
        "created": record.created,
        "run": record.run,
        "chain": nearest_first(records.values(), name)[1:],
        "children": [child for child, other in records.items() if other.parent == name],
        **_materials(record, records, events),
        **_making(record),
        "trigger": _trigger(record, events),
        "approval": record.approval.document() if record.approval else None,
        "judges": {"signed": sorted(record.judged), "custody": record.custody},
        "checks": _checks(record),
        "overrides": _overrides(record, events),
        "cost": {
            "seconds": record.seconds,
            "gpu_seconds": record.gpu_seconds,
            "steps": record.times,
        },
        "slices": record.slices,
        "signatures": _signatures(main, name),
        "events": [_told(event) for event in _acts(events) if _touches(event, record)],
        "line": [_row(other, events) for other in records.values()],
        "rollbacks": [_told(event) for event in events if isinstance(event, RollbackEvent)],
    }


def _events(main: Mainline) -> Iterator[Event]:
    for name, content in main.folder_files("events").items():
        if name.endswith(".json"):
            yield parse_event(name, content).model_copy(update={"id": name.removesuffix(".json")})


def _materials(record: Record, records: Mapping[str, Record], events: Sequence[Event]) -> Document:
    """What it was made from: base, data, replay, teacher, extractor."""
    digests, update, learning = record.digests, record.figures("update"), learning_of(record)
    taken = {dep["path"]: dep for stage in record.stages.values() for dep in stage.get("deps", ())}
    replayed = taken.get("state/replay") if learning.replayed else None
    parent = records.get(record.parent) if record.parent else None
    return {
        "base": digests.base,
        "rebase": record.rebase.document() if record.rebase else None,
        "data": _data(record, events),
        "replay": {
            "from": replayed["md5"] if replayed else None,
            "examples": update.get("examples_replay"),
            "next": digests.state["replay"],
        },
        "teacher": {
            "version": record.parent,
            "adapter": digests.teacher,
            "is_the_parent": parent is not None and digests.teacher == parent.digests.state["adapter"],
            "distilled": learning.taught,
        }
        if record.parent
        else None,
        "extractor": digests.extractor,
        "adapter": digests.state["adapter"],
    }


def _data(record: Record, events: Sequence[Event]) -> Document | None:
    """The batch: of which runs it is, how many assets by slice and split, and what each intake brought."""
    batch = record.figures("ingest").get("batch")
    if not batch:
        return None
    runs = {event.run: event for event in events if isinstance(event, RunEvent)}
    return {
        "digest": record.digests.batch or None,
        "md5": stored(record).get("tonight/batch"),
        "assets": batch.get("assets"),
        "slices": batch.get("slices") or {},
        "learnt": record.figures("update").get("examples_new"),
        "intakes": [_intake(str(name), runs.get(name)) for name in batch.get("runs") or ()],
    }


def _intake(run: str, event: RunEvent | None) -> Document:
    came = event.intake.document() if event and event.intake else {}
    ended = {"at": event.at if event else None, "outcome": event.outcome if event else None}
    return {"run": run, **ended, **{key: came.get(key) for key in ("assets", "quarantined", "slices", "md5")}}


def _making(record: Record) -> Document:
    """How it was made: code, environment, parameters that are not the defaults, seeds."""
    given, defaults = parameters(record), flat(Params().model_dump())
    changed = (key for key, value in sorted(given.items()) if key not in defaults or value != defaults[key])
    odd = {key: {"value": given[key], "default": defaults.get(key)} for key in changed}
    seeds = {"seed": given.get("seed"), "seed_plan": record.figures("evaluate").get("seed_plan")}
    own = record.parameters.set
    return {
        "code": record.code,
        "main": record.main,
        **environment(record),
        "parameters": odd,
        "set_for_this_run": own,
        "seeds": seeds,
    }


def _trigger(record: Record, events: Sequence[Event]) -> Document:
    """Who or what started it; the event of the run knows more than an old record."""
    mine = (event for event in events if isinstance(event, RunEvent) and event.run == record.run)
    told = next((event.trigger.document() for event in mine), {})
    return {**told, **record.trigger.document()}


def _checks(record: Record) -> Document:
    figures = record.figures("gate")
    return {
        "drift": {
            "verdict": record.verdict("drift"),
            "why": record.why("drift"),
            "slices": record.figures("drift").get("slices") or {},
        },
        "gate": {
            "verdict": record.verdict("gate"),
            "why": record.why("gate"),
            "level": figures.get("level"),
            "checks": [{key: check.get(key) for key in CHECK_KEYS} for check in figures.get("checks") or ()],
            "own": figures.get("user_checks"),
        },
    }


def _overrides(record: Record, events: Sequence[Event]) -> list[str]:
    """What was done past the ordinary way: each is a sentence."""
    found, trigger = [], _trigger(record, events)
    gate = record.verdict("gate")
    approved = record.figures("ingest").get("approved")
    if trigger.get("force"):
        found.append(
            f"drift was forced by {trigger.get('by') or 'an unnamed person'}: {trigger.get('reason') or 'no reason'}"
        )
    if approved:
        found.append(f"the batch was held and {approved.get('by')} approved it: {approved.get('reason')}")
    if record.approval and gate != "promote":
        found.append(f"the gate said {gate} and {record.approval.by} approved the candidate")
    own = record.parameters.set
    return [*found, *(f"{key} was {json.dumps(value)} for this run alone" for key, value in own.items())]


def _signatures(main: Mainline, version: str) -> dict[str, bool]:
    """Which signatures lie beside the record; whether they hold is for `retain verify` to say."""
    path = version_file(version).removesuffix(".json")
    there = main.blobs("versions")
    return {name: f"{path.partition('/')[2]}{ending}" in there for name, ending in SIGNATURES.items()}


def _acts(events: Sequence[Event]) -> Iterator[MovingAct]:
    return (event for event in events if isinstance(event, RollbackEvent | RebaseEvent | WithdrawalEvent))


def _touches(event: MovingAct, record: Record) -> bool:
    """Whether a rollback left or restored a version, its base was asked for, or what was withdrawn had a part in it."""
    version = record.version
    if isinstance(event, RollbackEvent):
        return version == event.version or version in event.left
    if isinstance(event, RebaseEvent):
        return record.run == event.run
    return any(version in (event.touched.get(part) or ()) for part in TOUCHED)


def _learnt(event: Event) -> Collection[str]:
    """The versions that had learnt what a withdrawal took out."""
    return (event.touched.get("learnt") or ()) if isinstance(event, WithdrawalEvent) else ()


def _told(event: MovingAct) -> Document:
    found = {"id": event.id, "kind": event.kind, "at": event.at, "by": event.by, "reason": event.reason}
    if isinstance(event, RollbackEvent):
        return {**found, "from": event.champion, "to": event.version, "left": list(event.left)}
    if isinstance(event, RebaseEvent):
        return {**found, "run": event.run, "before": event.before, "after": event.after["md5"]}
    return {**found, "assets": len(event.assets), "source": event.source, "erase": event.erase}


def _row(record: Record, events: Sequence[Event]) -> Document:
    """A version as the graph of the line shows it."""
    data = _data(record, ()) or {}
    return {
        "version": record.version,
        "parent": record.parent,
        "created": record.created,
        "run": record.run,
        "assets": data.get("assets"),
        "slices": {name: sum(splits.values()) for name, splits in (data.get("slices") or {}).items()},
        "runs": len(data.get("intakes") or ()),
        "gate": record.verdict("gate"),
        "approved": bool(record.approval),
        "base": record.digests.base,
        "withdrawn": any(record.version in _learnt(event) for event in events),
    }
