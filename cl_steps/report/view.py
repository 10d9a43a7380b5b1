"""An overview as the page shows it: words, pills and rows, nothing left to decide for the template.

Every text here is plain and is escaped by the template; only plots are markup, and those are made in `svg.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cl_steps.pipeline import STAGES
from cl_steps.report import plots
from cl_steps.report.histograms import histograms_plot
from cl_steps.report.overview import Night, Overview, new_slices, number, table, text
from cl_steps.report.samples import Pair, pairs
from cl_steps.report.sections import (
    RecordView,
    checks_grid,
    own_checks,
    quarantine_grid,
    quarantine_note,
    record_view,
    scores_grid,
    slices_grid,
)
from cl_steps.report.words import DASH, Grid, Pill, answer_words, moment, pill, seconds, started_by, whole

PLURALS = {
    "new": "new",
    "duplicates": "exact duplicates",
    "near_duplicates": "near duplicates",
    "known": "known already",
    "quarantined": "in quarantine",
}


@dataclass(frozen=True)
class StepView:
    """One step of a night: what it said and why."""

    name: str
    pill: Pill
    why: str


@dataclass(frozen=True)
class NightView:
    """One night's section."""

    number: int
    run: str
    when: str
    started_by: str
    outcome: Pill
    drift: Pill | None
    gate: Pill | None
    version: str | None
    why: str
    answer: str
    seconds: str
    arrivals: str
    quarantined: str
    steps: tuple[StepView, ...]
    counts: tuple[tuple[str, str], ...]
    slices: Grid | None
    quarantine: Grid | None
    quarantine_note: str
    drift_plot: Markup | None
    histograms: Markup | None
    drift_why: str
    evidently: str | None
    samples: tuple[Pair, ...]
    samples_note: str
    gate_plot: Markup | None
    gate_why: str
    checks: Grid | None
    own_checks: str
    record: RecordView | None


@dataclass(frozen=True)
class PageView:
    """The whole page."""

    line: str
    champion: str
    facts: tuple[tuple[str, str, str], ...]
    glance: tuple[NightView, ...]
    forgetting: Markup | None
    forgotten: str
    scores: Grid | None
    nights: tuple[NightView, ...]


def page_view(overview: Overview, detailed: int) -> PageView:
    """The page of an overview: every night in the table, the latest `detailed` ones with a section; latest first."""
    first = len(overview.nights) - detailed
    nights = [night_view(overview, night, place, place > first) for place, night in enumerate(overview.nights, start=1)]
    latest = tuple(reversed(nights))
    return PageView(
        overview.line,
        overview.champion or DASH,
        _facts(overview),
        latest,
        plots.forgetting_plot(overview),
        plots.forgotten(overview),
        scores_grid(overview),
        latest[:detailed],
    )


def night_view(overview: Overview, night: Night, place: int, detailed: bool) -> NightView:
    """A night's section; without its plots and pictures where it is not shown in detail."""
    ingest, event = night.figures("ingest"), night.event
    trigger, record = table(event.get("trigger")), overview.record(night.version)
    quarantined = table(event.get("intake")).get("quarantined", ingest.get("quarantined"))
    return NightView(
        number=place,
        run=night.run,
        when=moment(event.get("at")),
        started_by=started_by(trigger, bool(event.get("rebase"))),
        outcome=pill(night.outcome),
        drift=_maybe(night.verdict("drift")),
        gate=_maybe(night.verdict("gate")),
        version=night.version,
        why=text(event.get("why")),
        answer=answer_words(night.answer),
        seconds=seconds(event.get("seconds")),
        arrivals=whole(table(event.get("intake")).get("assets", ingest.get("new"))),
        quarantined=whole(quarantined),
        steps=tuple(_step(night, step.name) for step in STAGES),
        counts=tuple((PLURALS[key], whole(ingest[key])) for key in PLURALS if key in ingest),
        slices=slices_grid(ingest),
        quarantine=quarantine_grid(ingest),
        quarantine_note=quarantine_note(ingest),
        drift_plot=plots.drift_plot(night) if detailed else None,
        histograms=histograms_plot(night) if detailed else None,
        drift_why=_unless_said(night, "drift"),
        evidently=evidently_name(night) if "evidently.html" in night.pictures.drift else None,
        samples=pairs(night.pictures.samples, new_slices(night)) if detailed else (),
        samples_note=_samples_note(night),
        gate_plot=plots.gate_plot(night) if detailed else None,
        gate_why=_unless_said(night, "gate"),
        checks=checks_grid(night),
        own_checks=own_checks(night),
        record=record_view(record) if record else None,
    )


def evidently_name(night: Night) -> str:
    """The file of a night's Evidently report, beside the page; a run id holds letters, digits and dashes only."""
    return f"evidently-{night.run}.html"


def _maybe(word: str | None) -> Pill | None:
    return pill(word) if word else None


def _facts(overview: Overview) -> tuple[tuple[str, str, str], ...]:
    champion, outcomes = overview.record(overview.champion) or {}, [night.outcome for night in overview.nights]
    learnt = sum(
        number(table(n.event.get("batch")).get("assets")) or 0 for n in overview.nights if n.outcome == "promoted"
    )
    slices = table(champion.get("slices"))
    return (
        ("Champion", overview.champion or DASH, f"since {moment(champion.get('created'))}"),
        ("Nights", str(len(outcomes)), _tally(outcomes)),
        ("Slices it knows", str(len(slices)), ", ".join(plots.short(name, 18) for name in sorted(slices)[:6])),
        ("Images learnt", whole(learnt), f"in {outcomes.count('promoted')} versions after the base"),
    )


def _tally(outcomes: Sequence[str]) -> str:
    counts = {name: outcomes.count(name) for name in dict.fromkeys(outcomes)}
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()) or "none yet"


def _step(night: Night, name: str) -> StepView:
    report = table(night.reports.get(name))
    status = text(report.get("status"))
    if not status:
        return StepView(name, Pill("no report", "calm"), "")
    verdict = text(report.get("verdict")) or status
    return StepView(name, pill("skipped" if status == "skipped" else verdict), _unless_said(night, name))


def _unless_said(night: Night, step: str) -> str:
    """A step's reason, unless it is the night's reason, which stands above."""
    return "" if night.why(step) == text(night.event.get("why")) else night.why(step)


def _samples_note(night: Night) -> str:
    if night.pictures.samples or not night.did("evaluate"):
        return ""
    return "The pictures of this night are no longer in the store: they were pruned."
