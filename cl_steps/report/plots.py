"""The plots of the page: how far the batch is from what is known, what was forgotten, and what the gate saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from cl_steps.documents import Json
from cl_steps.report.overview import Night, Overview, new_slices, number, rows, scores, table, text
from cl_steps.report.svg import BAD, GOOD, INK, MUTED, PAPER, RULE, SERIES, WARN, Margins, new_axes, styled, to_svg
from cl_steps.stats.forgetting import summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "os^DvP*X"
TITLES = {
    "fidelity": "Prompt fidelity (higher is better)",
    "loss": "Denoising loss against the anchor, % (lower is better)",
}
VERDICT_LOOK = {"pass": (GOOD, "o"), "fail": (BAD, "X"), "inconclusive": (WARN, "D")}
REACH, GAIN_REACH = 4.0, 20.0
"""The gate's plot shows harms and gains up to this many margins; beyond it an arrow says that it goes on."""


@dataclass(frozen=True)
class Measured:
    """One evaluated candidate: where it stands on the axis, its label, whether it became a version, its scores."""

    label: str
    kept: bool
    values: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class DriftLine:
    """One line of the drift plot: a slice, what of it was compared, its AUC and p-value, and the least that counts."""

    name: str
    what: str
    auc: float
    p_value: float | None
    floor: float
    colour: str


def drift_plot(night: Night) -> Markup | None:
    """How well the batch can be told from the reference, per slice, and how much worse its captions fit: AUC."""
    found = _drift_lines(night)
    if not found:
        return None
    with styled():
        labels = [f"{short(line.name)} · {line.what}" for line in found]
        figure, (axes,) = new_axes([0.42 * len(found)], 1, Margins(_room(labels), bottom=0.5), (0, 0))
        _drift_rows(axes, found)
        _name_rows(axes, labels)
        alt = "; ".join(f"{line.name}, {line.what}: AUC {line.auc:.2f}" for line in found)
        return to_svg(figure, f"drift-{night.run}", f"How far each slice is from what is known. {alt}.")


def forgetting_plot(overview: Overview) -> Markup | None:
    """Every slice over the versions: prompt fidelity, and denoising loss relative to the slice's anchor."""
    steps = measured(overview)
    seen = {metric for step in steps for metrics in step.values.values() for metric in metrics}
    panels = [metric for metric in ("fidelity", "loss") if metric in seen]
    if not panels:
        return None
    names = sorted({name for step in steps for name in step.values})
    with styled():
        right = _room([short(name, 20) for name in names])
        figure, grid = new_axes([2.8], len(panels), Margins(0.45, right, 0.35, 0.3), (right + 0.45, 0))
        for axes, panel in zip(grid, panels, strict=True):
            _curves(axes, steps, names, panel)
        return to_svg(figure, "forgetting", "Scores of every slice over the versions; the table below has the figures.")


def gate_plot(night: Night) -> Markup | None:
    """What the gate saw, per slice and metric: estimate and interval in units of the margin, coloured by verdict."""
    checks = [check for check in rows(night.figures("gate").get("checks")) if number(check.get("margin"))]
    checks.sort(key=lambda check: text(check.get("slice")))
    kinds = ("non-inferiority", "superiority")
    panels = [[check for check in checks if check.get("kind") == kind] for kind in kinds]
    shown = [(kind, panel) for kind, panel in zip(kinds, panels, strict=True) if panel]
    if not shown:
        return None
    left = _room([check_name(check) for check in checks])
    with styled():
        heights = [0.27 * len(panel) + 0.1 for _, panel in shown]
        figure, grid = new_axes(heights, 1, Margins(left, right=0.2, top=0.55), (0, 0.95))
        for axes, (kind, panel) in zip(grid, shown, strict=True):
            _intervals(axes, panel, gain=kind == "superiority")
        words = [f"{check_name(check)}: {text(check.get('verdict'))}" for check in checks]
        return to_svg(figure, f"gate-{night.run}", f"What the gate saw. {'; '.join(words)}.")


def measured(overview: Overview) -> list[Measured]:
    """Every evaluated candidate in order, the first version before them.

    A value is {slice: {metric: value}}; losses are relative to the slice's anchor (0.02: 2 % above it).
    """
    nights = [night for night in overview.nights if any(scores(night))]
    if not nights:
        return []
    first = Measured("v1", True, _relative(nights[0], "champion"))
    places = {id(night): place for place, night in enumerate(overview.nights, start=1)}
    labels = [(night, night.version or f"night {places[id(night)]}") for night in nights]
    return [first, *(Measured(label, bool(night.version), _relative(night, "candidate")) for night, label in labels)]


def forgotten(overview: Overview) -> str:
    """The usual two summaries of prompt fidelity over the versions, in a sentence; empty where nothing is old yet."""
    versions = {step.label: step.values for step in measured(overview) if step.kept}
    fidelity = {
        label: {name: metrics["fidelity"] for name, metrics in values.items() if "fidelity" in metrics}
        for label, values in versions.items()
    }
    found = summarise(fidelity)
    if found.forgetting is None or found.backward_transfer is None:
        return ""
    return (
        f"Prompt fidelity of old slices, in the mean: {-found.forgetting:+.3f} against each one's best version before "
        f"(forgetting), {found.backward_transfer:+.3f} against the one that learnt it (backward transfer)."
    )


def check_name(check: Json) -> str:
    """A check of the gate in words, such as `ink · loss` against the champion, or `ink · loss since its anchor`."""
    since = " since its anchor" if check.get("against") == "anchor" else ""
    return f"{short(check.get('slice'))} · {text(check.get('metric'))}{since}"


def short(value: object, limit: int = 26) -> str:
    """A name that fits beside a plot."""
    name = text(value)
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def _relative(night: Night, model: str) -> dict[str, dict[str, float]]:
    """A slice's anchor is the champion where no other was measured, and the candidate where the slice is new."""
    found: dict[str, dict[str, float]] = {}
    fresh = new_slices(night)
    for name, metric, values in scores(night):
        if model not in values or (name in fresh and model == "champion"):
            continue
        anchor = values["candidate"] if name in fresh else values.get("anchor", values.get("champion"))
        if metric == "loss" and anchor:
            found.setdefault(name, {})[metric] = values[model] / anchor - 1
        elif metric == "fidelity":
            found.setdefault(name, {})[metric] = values[model]
    return found


def _drift_lines(night: Night) -> list[DriftLine]:
    figures, limits = night.figures("drift"), night.params.drift
    found = []
    for key, value in sorted(table(figures.get("slices")).items()):
        auc, colour = number(table(value).get("auc")), WARN if table(value).get("drifted") else GOOD
        if auc is not None:
            what = "pictures, new" if value.get("new") else "pictures"
            found.append(
                DriftLine(text(key), what, auc, number(value.get("p_value")), _floor(value, limits.min_auc), colour)
            )
        for measure in ("agreement", "specificity"):
            fit = table(table(figures.get(measure)).get(key))
            auc = number(fit.get("auc"))
            if auc is not None:
                alarming = auc >= limits.alarm_auc and night.verdict("drift") != "quiet" and bool(figures.get("alarms"))
                colour = BAD if alarming else GOOD
                p_value = number(fit.get("p_value"))
                found.append(DriftLine(text(key), f"captions, {measure}", auc, p_value, limits.alarm_auc, colour))
    return found


def _floor(value: Json, least: float) -> float:
    """The floor of the slice's own tests, which draws of the reference itself may raise above `least`."""
    found = (number(table(value.get(family)).get("floor")) for family in ("tonight", "pending"))
    return next((floor for floor in found if floor is not None), least)


def _drift_rows(axes: Axes, found: Sequence[DriftLine]) -> None:
    for place, line in enumerate(found):
        axes.plot([0.5, line.auc], [place, place], color=line.colour, linewidth=2.2, solid_capstyle="round", alpha=0.45)
        axes.plot([line.auc], [place], "o", color=line.colour, markersize=7, markeredgecolor=PAPER)
        axes.plot([line.floor, line.floor], [place - 0.3, place + 0.3], color=INK, linewidth=1.4)
        words = f"{line.auc:.2f}" + ("" if line.p_value is None else f" · p {p_words(line.p_value)}")
        axes.annotate(words, (1.025, place), va="center", color=INK)
    lowest = min(0.5, *(line.auc for line in found))
    axes.set(xlim=(lowest - 0.01, 1.16), ylim=(len(found) - 0.5, -0.5), xticks=[0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    axes.set_xlabel("AUC: 0.5 cannot be told from what is known, 1 always. Upright marks: the least that counts")


def p_words(p_value: float) -> str:
    """A p-value in words, such as `= 0.031` or `< 0.0001`."""
    return "< 0.0001" if p_value < 0.0001 else f"= {p_value:.2g}"


def _curves(axes: Axes, steps: Sequence[Measured], names: Sequence[str], metric: str) -> None:
    scale = 100.0 if metric == "loss" else 1.0
    ends: list[tuple[float, int, str]] = []
    for place, name in enumerate(names):
        colour, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
        values = [step.values.get(name, {}).get(metric) for step in steps]
        points = [
            (x, scale * y, step.kept) for x, (y, step) in enumerate(zip(values, steps, strict=True)) if y is not None
        ]
        kept = [(x, y) for x, y, was_kept in points if was_kept]
        if kept:
            xs, ys = zip(*kept, strict=True)
            axes.plot(xs, ys, color=colour, marker=marker, markersize=5.5, linewidth=2, markeredgecolor=PAPER)
            ends.append((kept[-1][1], place, name))
        for x, y in ((x, y) for x, y, was_kept in points if not was_kept):
            axes.plot([x], [y], "x", color=colour, markersize=6, markeredgewidth=1.6, alpha=0.75)
    axes.set_title(TITLES[metric])
    axes.set_xticks(range(len(steps)), [step.label for step in steps])
    axes.set_xlim(-0.3, len(steps) - 0.7)
    axes.margins(y=0.12)
    axes.grid(visible=False, axis="x")
    if metric == "loss":
        axes.axhline(0, color=MUTED, linewidth=1, zorder=0.6)
    _label_ends(axes, ends)


def _label_ends(axes: Axes, ends: Sequence[tuple[float, int, str]]) -> None:
    """Names at the right of their lines, apart from each other and otherwise as near to their lines as can be."""
    low, high = axes.get_ylim()
    for y, (_, place, name) in zip(
        spread([end[0] for end in sorted(ends)], (high - low) * 0.065), sorted(ends), strict=True
    ):
        axes.annotate(
            short(name, 20),
            (1, y),
            (8, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=SERIES[place % len(SERIES)],
            fontweight="bold",
        )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Sorted places moved as little as possible (least squares) so that neighbours are `gap` apart.

    That is an isotonic regression of the places less their share of gaps, by pooling adjacent violators.
    """
    pools: list[tuple[float, int]] = []
    for rank, place in enumerate(places):
        mean, size = place - rank * gap, 1
        while pools and pools[-1][0] > mean:
            other, count = pools.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        pools.append((mean, size))
    levels = [mean for mean, size in pools for _ in range(size)]
    return [level + rank * gap for rank, level in enumerate(levels)]


def _intervals(axes: Axes, checks: Sequence[Json], *, gain: bool) -> None:
    reach = GAIN_REACH if gain else REACH
    for place, check in enumerate(checks):
        _interval(axes, place, check, reach)
    seen = [value for check in checks for value in _in_margins(check) if value is not None]
    low, high = max(-reach, min([-0.5, *seen]) - 0.2), min(reach, max([1.5, *seen]) + 0.2)
    axes.axvspan(1 if gain else low, high if gain else 1, color=GOOD, alpha=0.07, linewidth=0, zorder=0)
    axes.axvline(1, color=INK, linewidth=1.2, linestyle=(0, (3, 3)), zorder=0.6)
    axes.axvline(0, color=RULE, linewidth=1.2, zorder=0.5)
    axes.set(xlim=(low, high), ylim=(len(checks) - 0.4, -0.6))
    title = "Gain in what is new, 1: what is asked for" if gain else "Harm to what is known, 1: its margin"
    axes.set_title(title, pad=20)
    axes.annotate(
        "asked for" if gain else "margin",
        (1, 1),
        (0, 3),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="center",
        va="bottom",
        color=INK,
    )
    _name_rows(axes, [check_name(check) for check in checks])


def _interval(axes: Axes, place: int, check: Json, reach: float) -> None:
    colour, marker = VERDICT_LOOK.get(text(check.get("verdict")), (MUTED, "o"))
    lower, estimate, upper = _in_margins(check)
    left, right = max(-reach, -reach if lower is None else lower), min(reach, reach if upper is None else upper)
    style = "-" if lower is not None and upper is not None else (0, (1, 2))
    axes.plot([left, right], [place, place], color=colour, linewidth=2.4, linestyle=style, alpha=0.55)
    for end, arrow, beyond in ((left, "<", left <= -reach), (right, ">", right >= reach)):
        if beyond:
            axes.plot([end], [place], arrow, color=colour, markersize=6, clip_on=False)
    if estimate is not None and abs(estimate) <= reach:
        axes.plot([estimate], [place], marker, color=colour, markersize=7, markeredgecolor=PAPER)


def _in_margins(check: Json) -> tuple[float | None, float | None, float | None]:
    margin = number(check.get("margin")) or 1.0
    values = (number(check.get(key)) for key in ("lower", "estimate", "upper"))
    lower, estimate, upper = (None if value is None else value / margin for value in values)
    return lower, estimate, upper


def _room(labels: Sequence[str]) -> float:
    """Inches that the longest label takes at most."""
    return 0.2 + 0.073 * max(map(len, labels), default=0)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
