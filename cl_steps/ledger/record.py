"""The record of a version, `versions/v0007.json`: what it was made from and judged by. Read and written here alone.

Its format has grown twice. `SINCE` says with which number a key came, and a key that an old record lacks has its
default: that is all that an upgrade is, and no record on disk is changed.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, StringConstraints, model_validator, with_config
from typing_extensions import TypedDict

from cl_steps.config import Md5
from cl_steps.documents import json_text
from cl_steps.errors import IntegrityError
from cl_steps.ledger.events import Trigger
from cl_steps.ledger.lasting import (
    KEPT,
    Commit,
    IsNumber,
    Lasting,
    Moment,
    Name,
    Positive,
    Rebased,
    Sha256,
    Stated,
    Version,
)

RECORD_SCHEMA = 3
"""2: SHA-256 of every file of adapter and base, and the commit on main before the version's own. 3: how the run began,
what its judges signed, and in whose hands the keys were; its parameters are main's as the run began.
"""
SINCE = {"main": 2, "files": 2, "begun": 3, "judged": 3, "custody": 3}
"""The number of the format from which on a record must have a key."""
OPTIONAL_SINCE = {"rebase": 2}
"""The same of keys that it may lack."""
STATE_PARTS = ("adapter", "replay", "reference", "global_eval", "anchors", "evaluation")
ModelFile = Annotated[str, StringConstraints(pattern=r"^(adapter|base)/.")]
INGEST: Any = {
    "type": "object",
    "required": ["figures"],
    "properties": {
        "figures": {
            "type": "object",
            "properties": {
                "batch": {
                    "type": "object",
                    "properties": {"runs": {"type": "array", "items": {"type": "string", "minLength": 1}}},
                }
            },
        },
        "verdict": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "why": {"type": "string"},
    },
}
"""Of the report of ingest more must be right: which runs' intakes the batch is made of."""
Custody = Literal["no keys", "one person", "separate"]


class Started(Trigger):
    """What started the version's run."""

    by: str
    reason: str


class Approval(Lasting):
    """A person's yes to a candidate."""

    by: str
    reason: str
    answer: str = ""
    at: Moment
    through: str = ""


class Digests(Lasting):
    """What the store, or the batch itself, calls what a version was made from; `state` is what it left."""

    batch: Name = ""
    teacher: Md5 = ""
    base: Md5
    extractor: Md5
    state: Annotated[dict[str, Md5], Field(json_schema_extra={"required": list(STATE_PARTS)})]

    @model_validator(mode="after")
    def _whole_state(self) -> Digests:
        absent = [part for part in STATE_PARTS if part not in self.state]
        if absent:
            raise ValueError(f"it lacks the state's {absent[0]}")
        return self


class Parameters(Lasting):
    """The parameters: main's file as the run began, and what this run alone set otherwise."""

    file: dict[str, Any]
    set: dict[str, Any]


@with_config(KEPT)
class Item(TypedDict):
    """Something that a stage read or wrote, as DVC's lock names it."""

    path: Name
    md5: Md5


@with_config(KEPT)
class Stage(TypedDict, total=False):
    """A stage of the run's lock."""

    deps: list[Item]
    outs: list[Item]
    params: dict[str, Any]


@with_config(KEPT)
class Told(TypedDict):
    """The report of a step, as the record keeps it."""

    figures: dict[str, Any]
    verdict: NotRequired[str | None]
    why: NotRequired[str]


class Begun(Lasting):
    """How the run began: the commit of its branch, and main's then."""

    commit: Commit
    main: Commit


class Record(Lasting):
    """A version."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"parent": {"type": "string"}}},
            "then": {
                "required": ["stages", "reports", "seconds"],
                "properties": {
                    "run": {"type": "string"},
                    "digests": {"required": ["batch", "teacher"]},
                    "reports": {"required": ["ingest"]},
                    "main": {"type": "string"},
                    "begun": {"type": "object"},
                },
            },
            "else": {"properties": {"version": {"const": "v1"}}},
        }
    )

    shape: Annotated[Literal[1, 2, 3], IsNumber] = Field(alias="schema")
    version: Version
    parent: Version | None
    run: Name | None
    created: Moment
    trigger: Started
    approval: Approval | None
    digests: Digests
    parameters: Parameters
    code: Sha256
    environment: dict[str, Any]
    slices: dict[str, dict[str, Any]]
    stages: dict[str, Stage] = Field(default_factory=dict)
    reports: Annotated[dict[str, Told], Field(json_schema_extra={"properties": {"ingest": INGEST}})] = Field(
        default_factory=dict
    )
    seconds: Stated[Positive] = None
    times: Stated[dict[str, Any]] = None
    gpu_seconds: Stated[Positive] = None
    main: Commit | None = None
    files: dict[ModelFile, Sha256] = Field(default_factory=dict)
    rebase: Stated[Rebased] = None
    begun: Begun | None = None
    judged: dict[str, Name] = Field(default_factory=dict)
    custody: Custody | None = None

    @model_validator(mode="after")
    def _whole(self) -> Record:
        there = self.model_fields_set
        wanted = {key for key, number in SINCE.items() if self.shape >= number}
        if self.parent is None:
            if self.version != "v1":
                raise ValueError("only v1 has no parent")
        else:
            wanted |= {"stages", "reports", "seconds"}
        if absent := sorted(wanted - there):
            raise ValueError(f"it lacks {absent[0]}")
        if not all(isinstance(run, str) and run for run in self.members):
            raise ValueError("reports/ingest/figures/batch/runs holds other things than runs")
        if self.parent is not None:
            self._learnt()
        return self

    def _learnt(self) -> None:
        """Raise ValueError where a version that a run made does not say what it learnt, and from what."""
        facts = {
            "run": self.run,
            "digests/batch": self.digests.batch,
            "digests/teacher": self.digests.teacher,
            "reports/ingest": self.reports.get("ingest"),
            "main": self.main or self.shape < SINCE["main"],
            "begun": self.begun or self.shape < SINCE["begun"],
        }
        absent = [name for name, fact in facts.items() if not fact]
        if absent:
            raise ValueError(f"it does not say {absent[0]}")

    @property
    def number(self) -> int:
        """7 of v7."""
        return int(self.version[1:])

    @property
    def members(self) -> tuple[str, ...]:
        """The runs whose intakes its batch is made of, as the report of ingest says."""
        batch = self.figures("ingest").get("batch", {})
        runs = batch.get("runs", []) if isinstance(batch, dict) else None
        return tuple(runs) if isinstance(runs, list) else ("",)

    def digest(self, name: str) -> str:
        """What it was made from, such as `batch`, or a part of its state, such as `adapter`; else empty."""
        own = {"batch": self.digests.batch, "teacher": self.digests.teacher}
        known = {**self.digests.state, "base": self.digests.base, "extractor": self.digests.extractor, **own}
        return known.get(name, "")

    def figures(self, step: str) -> dict[str, Any]:
        """What the report of a step says in figures; empty where there is none."""
        return self.reports[step]["figures"] if step in self.reports else {}

    def verdict(self, step: str) -> str | None:
        """The verdict of a step, if it gave one."""
        return self.reports[step].get("verdict") if step in self.reports else None

    def why(self, step: str) -> str | None:
        """The reason that a step gave."""
        return self.reports[step].get("why") if step in self.reports else None


def parse_record(path: str, content: bytes) -> Record:
    """The record in a file of main; raises IntegrityError where it is none."""
    try:
        return Record.from_document(json.loads(content))
    except (ValueError, RecursionError) as error:
        raise IntegrityError(
            f"{path} on main is no record of a version: `retain verify --all` says what is wrong"
        ) from error


def record_bytes(record: Record) -> bytes:
    """A record as its file holds it."""
    return json_text(record.document()).encode()
