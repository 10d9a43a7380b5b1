"""The tables of a night's section, and the record of the version that it made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cl_steps.documents import Json
from cl_steps.report import plots
from cl_steps.report.overview import Night, Overview, Report, legible_json, number, rows, table, text
from cl_steps.report.words import DASH, Grid, pill, whole
from cl_steps.stats.decision import amount


@dataclass(frozen=True)
class RecordView:
    """What a version's record says, short facts first."""

    version: str
    facts: tuple[tuple[str, str], ...]
    digests: tuple[tuple[str, str], ...]
    parameters: str
    file: str


def scores_grid(overview: Overview) -> Grid | None:
    """The figures of the forgetting plot."""
    steps = plots.measured(overview)
    names = sorted({(name, metric) for step in steps for name, metrics in step.values.items() for metric in metrics})
    if not names:
        return None
    lines = []
    for name, metric in names:
        values = [step.values.get(name, {}).get(metric) for step in steps]
        shown = [DASH if v is None else f"{v:.3f}" if metric == "fidelity" else f"{100 * v:+.1f} %" for v in values]
        lines.append((plots.short(name), "loss against anchor" if metric == "loss" else metric, *shown))
    headings = ("slice", "score", *(step.label for step in steps))
    return Grid(headings, tuple(lines), tuple(range(2, len(headings))))


def slices_grid(ingest: Report) -> Grid | None:
    """What arrived and what the batch holds, by slice and split."""
    splits = table(table(ingest.get("batch")).get("slices"))
    fresh = table(table(ingest.get("intake")).get("slices"))
    names = sorted({*map(text, splits), *map(text, fresh)})
    columns = ("train", "probe", "evaluation")
    lines = [
        (plots.short(name, 40), whole(fresh.get(name, 0)), *(whole(table(splits.get(name)).get(c, 0)) for c in columns))
        for name in names
    ]
    return Grid(("slice", "new tonight", *columns), tuple(lines), (1, 2, 3, 4)) if lines else None


def quarantine_grid(ingest: Report) -> Grid | None:
    """The files in quarantine, with reasons."""
    found = [
        tuple(text(item.get(key)) for key in ("file", "code", "reason")) for item in rows(ingest.get("quarantine"))
    ]
    return Grid(("file", "code", "reason"), tuple(found)) if found else None


def quarantine_note(ingest: Report) -> str:
    """That not all of them are shown, where it is so."""
    total, shown = number(ingest.get("quarantined")) or 0, len(rows(ingest.get("quarantine")))
    return f"The first {shown} of {total:.0f} files." if total > shown else ""


def checks_grid(night: Night) -> Grid | None:
    """Every check of the gate, in its metric's own unit."""
    lines = []
    for check in rows(night.figures("gate").get("checks")):
        metric, gain = text(check.get("metric")), check.get("kind") == "superiority"
        estimate, lower, upper, margin = (
            _amount(metric, check.get(key)) for key in ("estimate", "lower", "upper", "margin")
        )
        lines.append(
            (
                plots.short(check.get("slice"), 40),
                metric,
                text(check.get("against")),
                "gain" if gain else "harm",
                estimate,
                f"{lower} … {upper}",
                f"{'more' if gain else 'less'} than {margin}",
                pill(text(check.get("verdict"))),
                text(check.get("note")),
            )
        )
    headings = ("slice", "metric", "against", "of", "estimate", "bounds", "asked for", "verdict", "")
    return Grid(headings, tuple(lines), (4, 5, 6)) if lines else None


def own_checks(night: Night) -> str:
    """How the line's own checks went; empty where there are none."""
    counts = table(night.figures("gate").get("user_checks"))
    words = [f"{whole(counts[key])} {key}" for key in ("passed", "failed", "skipped") if number(counts.get(key))]
    return f"The line's own checks: {', '.join(words)}." if words else ""


def _amount(metric: str, value: object) -> str:
    found = number(value)
    return DASH if found is None else amount(metric, found)


def record_view(record: Report) -> RecordView:
    """A version's record for the page."""
    version, digests = text(record.get("version")), table(record.get("digests"))
    approval = table(record.get("approval"))
    facts = {
        "parent": record.get("parent"),
        "created": record.get("created"),
        "run": record.get("run"),
        "approved by": f"{text(approval.get('by'))}: “{text(approval.get('reason'))}”"
        if approval
        else "the gate alone",
        "code": record.get("code"),
        "made with": ", ".join(f"{text(k)} {text(v)}" for k, v in sorted(table(record.get("environment")).items())),
    }
    flat = {**{k: v for k, v in digests.items() if k != "state"}, **_prefixed(table(digests.get("state")))}
    return RecordView(
        version,
        tuple((key, text(value) or DASH) for key, value in facts.items()),
        tuple((text(key), text(value)) for key, value in sorted(flat.items())),
        legible_json(table(record.get("parameters"))),
        f"versions/v{int(version[1:]):04d}.json" if version[1:].isdecimal() else "",
    )


def _prefixed(state: Json) -> dict[str, Any]:
    return {f"state/{key}": value for key, value in state.items()}
