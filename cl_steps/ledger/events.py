"""Events, the files of `events/` on main: one type a kind, read and written here alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, StringConstraints, model_validator, with_config
from typing_extensions import TypedDict

from cl_steps.config import Md5
from cl_steps.documents import Json, json_text
from cl_steps.errors import IntegrityError
from cl_steps.ledger.lasting import (
    KEPT,
    FolderMd5,
    IsNumber,
    Lasting,
    Moment,
    Name,
    Number,
    Positive,
    Rebased,
    Sha256,
    Stated,
    Tuple,
    Version,
    Whole,
)
from cl_steps.pipeline import Outcome

EVENT_SCHEMA = 2
"""2: rollbacks and withdrawals, which a reader must not pass over."""
FINAL = ("no_update", "promoted", "rejected", "held", "stale")
"""Outcomes that stand; `failed` may be followed by a retry of the same run."""
BaseFile = Annotated[str, StringConstraints(pattern=r"^base/")]


class Act(Lasting):
    """What every event says: when it happened, who did it, and through what."""

    shape: Annotated[Literal[1, 2], IsNumber] = Field(alias="schema")
    id: Name
    at: Moment
    by: str
    through: str


class Trigger(Lasting):
    """What started a run, and what it was asked to do otherwise than the line's parameters say."""

    kind: str
    by: str = ""
    reason: str = ""
    set: dict[str, Any] = Field(default_factory=dict)
    force: bool = False


class Intake(Lasting):
    """What a run took in: the stored folder, how many assets, and what it set aside.

    Of the assets another run, which was at work at the same time, had taken in `again` first.
    """

    md5: Md5
    assets: Whole
    again: Whole = 0
    quarantined: Whole = 0
    quarantine_keys: Tuple[str] = ()
    slices: dict[str, Any] = Field(default_factory=dict)


class Batch(Lasting):
    """What a run was to learn: the runs whose intakes it is made of, and the digest that an answer binds to."""

    runs: Tuple[Name]
    assets: Whole
    digest: str
    of: Name | None = None


class RunEvent(Act):
    """How a run ended."""

    kind: Literal["run"]
    id: Name = ""
    by: str = ""
    through: str = ""
    run: Name
    trigger: Trigger
    outcome: Outcome
    why: str
    version: Version | None
    drift: str | None = None
    gate: str | None = None
    intake: Intake | None
    batch: Batch | None
    base: str = ""
    tip: str = ""
    seconds: Number = 0
    times: dict[str, Any] = Field(default_factory=dict)
    gpu_seconds: Positive = 0
    rebase: Stated[Rebased] = None

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"outcome": {"const": "promoted"}}},
            "then": {"properties": {"version": {"type": "string"}}},
        }
    )

    @model_validator(mode="after")
    def _made_one(self) -> RunEvent:
        if self.outcome == "promoted" and self.version is None:
            raise ValueError("a run that was promoted names its version")
        return self

    @property
    def members(self) -> tuple[str, ...]:
        """The runs whose intakes its batch is made of."""
        return self.batch.runs if self.batch else ()


class AnswerEvent(Act):
    """A person's answer to a held run; it binds to the batch's digest."""

    kind: Literal["answer"]
    id: Name = ""
    run: Name
    answer: Literal["yes", "no"]
    reason: Name
    digest: str

    @property
    def yes(self) -> bool:
        """Whether the person agreed."""
        return self.answer == "yes"


class RollbackEvent(Act):
    """An older version is the champion again; `lineage` are its ancestors and itself, `left` those left behind."""

    shape: Annotated[Literal[2], IsNumber] = Field(alias="schema")
    kind: Literal["rollback"]
    reason: Name
    version: Version
    champion: Version = Field(alias="from")
    lineage: Annotated[Tuple[Version], Field(min_length=1)]
    left: Tuple[Version]
    relearn: bool


@with_config(KEPT)
class Tombstone(TypedDict):
    """A withdrawn asset: its name, what tells copies of it, where it came in, for what, and whether as a copy."""

    sha256: Sha256
    dhash: NotRequired[str]
    thumbnail: NotRequired[str]
    intake: NotRequired[str | None]
    split: NotRequired[str | None]
    copy: NotRequired[bool]


@with_config(KEPT)
class Folder(TypedDict):
    """A stored folder, as DVC names an output."""

    md5: Md5
    size: NotRequired[Whole]
    nfiles: NotRequired[Whole]


class WithdrawalEvent(Act):
    """Assets are taken out for ever.

    `touched` is the report of all that held them, `replaced` says which stored folder stands for one that held them,
    and `erased` are the objects that are deleted.
    """

    shape: Annotated[Literal[2], IsNumber] = Field(alias="schema")
    kind: Literal["withdrawal"]
    reason: Name
    assets: Annotated[Tuple[Tombstone], Field(min_length=1)]
    source: str | None
    erase: bool
    touched: dict[str, Any]
    replaced: dict[Md5, Folder]
    erased: Tuple[Md5]


@with_config(KEPT)
class NewBase(TypedDict):
    """A base on the store."""

    md5: FolderMd5
    size: Whole
    nfiles: Annotated[int, Field(ge=1)]


class RebaseEvent(Act):
    """A person asks for a new base: for which run, in place of which, and the SHA-256 of each of its files."""

    shape: Annotated[Literal[2], IsNumber] = Field(alias="schema")
    kind: Literal["rebase"]
    reason: Name
    run: Name
    before: FolderMd5
    after: NewBase
    files: Annotated[dict[BaseFile, Sha256], Field(min_length=1)]


class PruneEvent(Act):
    """Old runs that came to nothing are let go, each with the tip of its branch."""

    shape: Annotated[Literal[2], IsNumber] = Field(alias="schema")
    kind: Literal["prune"]
    days: Number = 0
    runs: dict[str, Name]


class MigrationEvent(Act):
    """The workspace is of a newer format."""

    shape: Annotated[Literal[2], IsNumber] = Field(alias="schema")
    kind: Literal["migration"]
    before: Whole = Field(alias="from")
    after: Whole = Field(alias="to")


class OtherEvent(Lasting):
    """An event of a kind that this version does not know, which it passes over."""

    shape: Annotated[Literal[1, 2], IsNumber] = Field(alias="schema")
    kind: Name
    id: str = ""


Event = (
    RunEvent | AnswerEvent | RollbackEvent | WithdrawalEvent | RebaseEvent | PruneEvent | MigrationEvent | OtherEvent
)
KINDS: Mapping[str, type[Event]] = {
    "run": RunEvent,
    "answer": AnswerEvent,
    "rollback": RollbackEvent,
    "withdrawal": WithdrawalEvent,
    "rebase": RebaseEvent,
    "prune": PruneEvent,
    "migration": MigrationEvent,
}


def event_of(document: Json) -> Event:
    """The event that a document is; raises WrongShape."""
    return model_of(document.get("kind")).from_document(document)


def model_of(kind: Any) -> type[Event]:
    """The type of events of a kind."""
    return KINDS.get(kind, OtherEvent) if isinstance(kind, str) else OtherEvent


def parse_event(name: str, content: bytes) -> Event:
    """One event file; raises IntegrityError where it is none."""
    try:
        return event_of(json.loads(content))
    except (ValueError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"events/{name} is not an event of this format: restore it from Git's history") from error


def event_bytes(event: Lasting) -> bytes:
    """An event as its file holds it."""
    return json_text(event.document()).encode()


def event_path(kind: str, run: str, at: datetime | None = None) -> str:
    """A new event's path; names sort by time. `at` is what `Mainline.moment` says (None: this machine's clock)."""
    moment = at or datetime.now(UTC)
    return f"events/{moment:%Y%m%dT%H%M%S}{moment.microsecond:06d}Z-{kind}-{run}.json"


def event_moment(name: str) -> datetime | None:
    """The moment that the name of an event's file (or of its signature's) begins with; None where it is none."""
    try:
        return datetime.strptime(name.partition("-")[0], "%Y%m%dT%H%M%S%fZ").replace(tzinfo=UTC)
    except ValueError:
        return None
