"""The ledger: what `events/` says about every intake. Pure: events in, states out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cl_steps.config import RunSpec
from cl_steps.errors import UsageError
from cl_steps.ledger.events import (
    AnswerEvent,
    Event,
    Folder,
    PruneEvent,
    RebaseEvent,
    RollbackEvent,
    RunEvent,
    Tombstone,
    WithdrawalEvent,
    parse_event,
)
from cl_steps.pipeline import Outcome

SOUND = ("quiet", "drifted")
"""What drift said of an intake on its own night, if it was no alarm."""


@dataclass
class Intake:
    """What one run took in, and what became of it; `versions` are those that learnt it, left behind or not.

    `assets` are those that no other run had taken in before.
    """

    run: str
    md5: str
    assets: int
    status: Literal["pending", "learnt", "set_aside"] = "pending"
    attempts: int = 0
    why: str = ""
    versions: list[str] = field(default_factory=list)


@dataclass
class Ledger:
    """The state of every intake, run and answer after all events.

    `tombstones` are the withdrawn assets by SHA-256: what tells copies of each, as the event wrote it down. `replaced`
    says which object (md5) of the store stands for one that held a withdrawn asset, and `erased` by which event
    objects were deleted. `pruned` are the runs that a person let go of, each with the tip of its branch then. `rebases`
    are the runs that a person asked to put a new base under the line, whatever became of them.
    """

    intakes: dict[str, Intake] = field(default_factory=dict)
    runs: dict[str, RunEvent] = field(default_factory=dict)
    answers: dict[str, AnswerEvent] = field(default_factory=dict)
    quarantined: set[str] = field(default_factory=set)
    rollbacks: list[RollbackEvent] = field(default_factory=list)
    withdrawals: list[WithdrawalEvent] = field(default_factory=list)
    tombstones: dict[str, Tombstone] = field(default_factory=dict)
    replaced: dict[str, Folder] = field(default_factory=dict)
    erased: dict[str, str] = field(default_factory=dict)
    pruned: dict[str, str] = field(default_factory=dict)
    rebases: dict[str, RebaseEvent] = field(default_factory=dict)

    def pending(self, max_attempts: int) -> tuple[str, ...]:
        """The runs whose intakes wait to be learnt, oldest first."""
        waiting = (i for i in self.intakes.values() if i.status == "pending" and i.attempts < max_attempts)
        return tuple(intake.run for intake in waiting)

    def members(self, run: RunSpec, max_attempts: int) -> tuple[str, ...]:
        """The runs whose intakes are a run's batch, tonight's own not counted; a rebase has none."""
        if run.rebase:
            return ()
        return self.batch_of(run.batch) if run.batch else self.pending(max_attempts)

    def batch_of(self, run: str) -> tuple[str, ...]:
        """The intakes that the batch of `run` consisted of; raises UsageError for an unknown run."""
        event = self.runs.get(run)
        if event is None or not event.members:
            raise UsageError(f"run {run!r} has no stored batch: `retain runs` lists the runs")
        return event.members

    def answer_for(self, digest: str) -> AnswerEvent | None:
        """The yes that a person gave to exactly this batch, if any."""
        return next((a for a in self.answers.values() if a.yes and a.digest == digest), None)

    def approved(self) -> str | None:
        """The oldest held run with a batch that a person approved and that nobody ran again since."""
        repeated = {event.batch.of for event in self.runs.values() if event.batch}
        yes = (a.run for a in self.answers.values() if a.yes and a.run not in repeated)
        held = (run for run in yes if self.runs[run].outcome == "held" and run not in self.rebases)
        return next(held, None)

    def standing(self, md5: str) -> Folder:
        """The output (md5; size and nfiles where they are known) that stands for a stored folder now: often itself."""
        out: Folder = {"md5": md5}
        while (other := self.replaced.get(out["md5"])) and other["md5"] != out["md5"]:
            out = other
        return out

    def outcome(self, run: str) -> Outcome | None:
        """How a run ended; None while it runs."""
        event = self.runs.get(run)
        return event.outcome if event else None

    def apply(self, event: Event) -> None:
        """Take one event in; later events win."""
        match event:
            case RunEvent():
                self._apply_run(event)
            case AnswerEvent():
                self._apply_answer(event)
            case RollbackEvent():
                self._apply_rollback(event)
            case WithdrawalEvent():
                self._apply_withdrawal(event)
            case RebaseEvent():
                self.rebases[event.run] = event
            case PruneEvent():
                self.pruned |= event.runs

    def _apply_answer(self, event: AnswerEvent) -> None:
        """A no to an alarming batch is one to what that night took in: what nights before it found sound waits on."""
        self.answers[event.run] = event
        run = self.runs.get(event.run)
        if event.yes or run is None or run.outcome != "held":
            return
        for intake in (self.intakes[member] for member in run.members if member in self.intakes):
            own = self.runs.get(intake.run)
            if intake.why != _held_by(event.run):
                continue
            if run.drift == "alarming" and intake.run != event.run and own and own.drift in SOUND:
                intake.status, intake.why = "pending", ""
            else:
                intake.why = f"run {event.run} was refused by {event.by}"

    def _apply_rollback(self, event: RollbackEvent) -> None:
        """What only the versions left behind learnt is set aside, or waits again where a person wanted it so.

        What an earlier rollback left behind stays as that one, or a person since, decided.
        """
        self.rollbacks.append(event)
        for intake in self.intakes.values():
            kept = [version for version in intake.versions if version in event.lineage]
            if kept:
                intake.status, intake.why = "learnt", f"learnt by {kept[-1]}"
            elif set(intake.versions).isdisjoint(event.left):
                continue
            elif event.relearn:
                intake.status, intake.why, intake.attempts = "pending", "", 0
            else:
                intake.status, intake.why = "set_aside", f"left behind by the rollback to {event.version}"

    def _apply_withdrawal(self, event: WithdrawalEvent) -> None:
        self.withdrawals.append(event)
        self.tombstones |= {asset["sha256"]: asset for asset in event.assets}
        self.replaced |= event.replaced
        self.erased |= dict.fromkeys(event.erased, event.id)
        for intake in self.intakes.values():
            intake.md5 = self.standing(intake.md5)["md5"]

    def _apply_run(self, event: RunEvent) -> None:
        run, intake = event.run, event.intake
        earlier = self.runs.pop(run, None)
        self.runs[run] = event
        if intake:
            self.quarantined.update(intake.quarantine_keys)
        if intake and intake.assets and run not in self.intakes:
            self.intakes[run] = Intake(run, self.standing(intake.md5)["md5"], intake.assets - intake.again)
        for member in event.members:
            if member in self.intakes:
                _settle(self.intakes[member], event, first=earlier is None)


def _held_by(run: str) -> str:
    return f"held by run {run}"


def _settle(intake: Intake, event: RunEvent, *, first: bool) -> None:
    if event.outcome == "promoted":
        assert event.version, "the model of the event asks for it"
        intake.status, intake.why = "learnt", f"learnt by {event.version}"
        intake.versions.append(event.version)
    elif intake.status == "learnt":
        return
    elif event.outcome == "held":
        intake.status, intake.why = "set_aside", _held_by(event.run)
    elif event.outcome == "rejected" and first:
        intake.attempts += 1


def fold(events: Iterable[Event]) -> Ledger:
    """The ledger after `events`, which must be in order."""
    ledger = Ledger()
    for event in events:
        ledger.apply(event)
    return ledger


def read_ledger(folder: Path) -> Ledger:
    """The ledger of an `events/` folder; file names sort by time."""
    return fold(parse_event(path.name, path.read_bytes()) for path in sorted(folder.glob("*.json")))
