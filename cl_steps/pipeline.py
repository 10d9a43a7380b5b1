"""READ FIRST: the pipeline as data. Laptop, DVC and Airflow run these steps and no others.

    landing --ingest--> batch --drift--> [quiet: no_update | alarming: held]
                                 v drifted (or forced)
    state --------------------> update --> evaluate --> gate --> [reject | inconclusive: held]
                                                          v promote
                                                       promote --> close (always)

A step is a function `run(context) -> Report`: it reads `reads`, writes `writes` and returns its report. A rebase, which
puts a new base under the line, is a run like any other; what its steps do otherwise is `of_run` and `next_state`.
This module imports nothing heavy: DAG files read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

Outcome = Literal["no_update", "promoted", "rejected", "held", "stale", "failed"]
Role = Literal["step", "judge", "trusted"]


class Report(Protocol):
    """What the report of a step says, as far as it decides how a run goes on (`ledger/reports.py` is all of it)."""

    @property
    def status(self) -> str:
        """`done`, or `skipped`."""

    @property
    def verdict(self) -> str | None:
        """What the step judged, if it judges."""

    @property
    def why(self) -> str:
        """The reason."""

    @property
    def figures(self) -> Mapping[str, Any]:
        """What is behind it."""


@dataclass(frozen=True)
class Said:
    """A report of which no more is known, or wanted."""

    status: str
    verdict: str | None
    why: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


"""Whose credentials a step has.

A `step` parses hostile data or runs long: it writes its run's branch and nothing else. A `judge` also signs what it
measured and decided. What is `trusted` writes main, and signs versions and acts; of what judges it believes a run's
branch nothing but what a judge signed.
"""

STATE = ("base", "adapter", "replay", "global_eval", "evaluation", "anchors", "reference", "extractor")
"""What DVC versions under `state/`; it changes only on promotion or by a person's event."""
TONIGHT = "tonight/"
"""Where a run's steps write what DVC stores; what else they write is in Git alone."""


@dataclass(frozen=True)
class Step:
    """One step: what it is called, where its code is, what it reads and writes (paths in a workspace).

    `verdicts` is every word that its report may give; none: the step judges nothing.
    """

    name: str
    summary: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    device: Literal["cpu", "gpu"] = "cpu"
    role: Role = "step"

    @property
    def trusted(self) -> bool:
        """Whether it may change main."""
        return self.role == "trusted"

    @property
    def judges(self) -> bool:
        """Whether it signs what it found."""
        return self.role == "judge"

    @property
    def function(self) -> str:
        """Where the code is, as `module:function`."""
        return f"cl_steps.steps.{self.name}:run"

    @property
    def report(self) -> str:
        """The path of the report that the step leaves."""
        return f"reports/{self.name}.json"

    @property
    def statement(self) -> str:
        """The path of what a judge signed about it."""
        return f"reports/{self.name}.intoto.json"


INGEST = Step(
    "ingest",
    "validate what landed, set the unusable aside with a reason, split the rest and write it as shards",
    reads=("landing", "events", "state/reference"),
    writes=("tonight/intake", "tonight/batch"),
    params=("seed", "ingest"),
    verdicts=("ok", "too_few"),
)
DRIFT = Step(
    "drift",
    "compare the batch with the reference of its slices: quiet, drifted or alarming",
    reads=("tonight/batch", "tonight/intake", "reports/ingest.json", "state/reference", "state/extractor"),
    writes=("tonight/drift/reference", "tonight/drift/figures"),
    params=("seed", "drift", "compute"),
    verdicts=("quiet", "drifted", "alarming"),
)
UPDATE = Step(
    "update",
    "learn the batch with replay and distillation: the candidate",
    reads=("tonight/batch", "reports/drift.json", "state/base", "state/adapter", "state/replay"),
    writes=("tonight/candidate/adapter", "tonight/candidate/replay"),
    params=("seed", "update", "serving", "compute"),
    device="gpu",
)
EVALUATE = Step(
    "evaluate",
    "measure champion, candidate and anchors on everything the model ever knew",
    reads=(
        "tonight/batch",
        "tonight/candidate/adapter",
        "reports/drift.json",
        "reports/update.json",
        "state/base",
        "state/adapter",
        "state/global_eval",
        "state/anchors",
        "state/extractor",
        "state/champion.json",
    ),
    writes=(
        "tonight/evaluation/global_eval",
        "tonight/evaluation/anchors",
        "tonight/evaluation/figures",
        "tonight/evaluation/samples",
    ),
    params=("seed", "evaluate", "serving", "gate", "ingest", "compute"),
    device="gpu",
    role="judge",
)
GATE = Step(
    "gate",
    "decide from the paired figures: promote, reject or inconclusive",
    reads=("tonight/evaluation/figures", "reports/drift.json", "reports/evaluate.json", "checks"),
    writes=("reports/junit.xml",),
    params=("gate", "ingest"),
    verdicts=("promote", "reject", "inconclusive"),
    role="judge",
)
PROMOTE = Step("promote", "make the candidate the champion: one commit on main", role="trusted")
CLOSE = Step("close", "record the run's intake and outcome on main, whatever they are", role="trusted")

STAGES = (INGEST, DRIFT, UPDATE, EVALUATE, GATE)
"""The steps that are DVC stages too."""
STEPS = {step.name: step for step in (*STAGES, PROMOTE, CLOSE)}

NEXT_STATE = {
    "adapter": "tonight/candidate/adapter",
    "replay": "tonight/candidate/replay",
    "reference": "tonight/drift/reference",
    "global_eval": "tonight/evaluation/global_eval",
    "anchors": "tonight/evaluation/anchors",
    "evaluation": "tonight/evaluation/figures",
}
"""Which output of a promoted run becomes which part of the state."""

NEW_BASE = "tonight/base"
"""The base that a rebase puts under the line; its branch holds it from the beginning, and no other run has it."""


def of_run(step: Step, rebase: bool) -> Step:
    """The step as a run does it: in a rebase, what reads the base reads the new one too."""
    return replace(step, reads=(*step.reads, NEW_BASE)) if rebase and "state/base" in step.reads else step


def next_state(rebase: bool) -> dict[str, str]:
    """`NEXT_STATE` of a run: after a rebase the base is another, too."""
    return {**NEXT_STATE, "base": NEW_BASE} if rebase else NEXT_STATE


def stop_reason(reports: Mapping[str, Report]) -> str | None:
    """Why the remaining stages have nothing to do, given the reports so far; None: go on."""
    for name in ("ingest", "drift"):
        report = reports.get(name)
        if report and report.status == "done" and report.verdict in ("too_few", "quiet", "alarming"):
            return f"{name}: {report.verdict}"
    return None


def next_step(reports: Mapping[str, Report]) -> str:
    """The step that follows, given the reports so far: a stage, `promote`, or `close`."""
    if stop_reason(reports):
        return "close"
    for step in STAGES:
        if step.name not in reports:
            return step.name
    return "promote" if reports["gate"].verdict == "promote" and not _asks(reports) else "close"


def outcome(reports: Mapping[str, Report], promoted: bool, stale: bool = False) -> Outcome:
    """How a run ended, from its reports and from whether its promotion reached main."""
    if promoted:
        return "promoted"
    if stale:
        return "stale"
    verdicts = {name: report.verdict for name, report in reports.items()}
    if verdicts.get("ingest") == "too_few" or verdicts.get("drift") == "quiet":
        return "no_update"
    if verdicts.get("drift") == "alarming" or verdicts.get("gate") == "inconclusive" or _asks(reports):
        return "held"
    return "rejected" if verdicts.get("gate") == "reject" else "failed"


def _asks(reports: Mapping[str, Report]) -> bool:
    """Whether the line wants a person's yes before each promotion and this candidate is ready for it."""
    gate = reports.get("gate")
    return gate is not None and gate.verdict == "promote" and bool(gate.figures.get("approval"))
