"""Small histograms of what moved most between the reference and a night's batch, from `plots.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from cl_steps.report.overview import Night, number, table, text
from cl_steps.report.plots import short
from cl_steps.report.svg import MUTED, SERIES, Margins, new_axes, styled, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS, COLUMNS = 6, 3
LEAST = 0.2
"""Total variation below which a difference is not worth a picture."""


@dataclass(frozen=True)
class Panel:
    """One measure of one slice: shares of reference and batch in common bins."""

    name: str
    edges: tuple[float, ...]
    reference: tuple[float, ...]
    batch: tuple[float, ...]

    @property
    def moved(self) -> float:
        """The total variation between the two: 0 the same, 1 nothing in common."""
        return sum(abs(old - new) for old, new in zip(self.reference, self.batch, strict=True)) / 2


def histograms_plot(night: Night) -> Markup | None:
    """Up to six measures that moved most, reference and batch; None where nothing moved."""
    found = sorted(panels(night), key=lambda panel: (-panel.moved, panel.name))[:PANELS]
    if not found:
        return None
    lines = -(-len(found) // COLUMNS)
    with styled():
        figure, grid = new_axes([1.05] * lines, COLUMNS, Margins(0.05, top=0.3), (0.25, 0.6))
        for axes, panel in zip(grid, found, strict=False):
            _draw(axes, panel)
        for axes in grid[len(found) :]:
            axes.set_visible(False)
        names = "; ".join(panel.name for panel in found)
        return to_svg(figure, f"histograms-{night.run}", f"What moved most: grey is known, blue is the batch. {names}.")


def panels(night: Night) -> list[Panel]:
    """The measures of known slices that moved by `LEAST` or more."""
    try:
        slices = table(table(json.loads(night.pictures.drift.get("plots.json", b"{}"))).get("slices"))
    except ValueError:
        return []
    named = (
        (f"{short(name)} · {text(what)}", table(h)) for name, all_ in slices.items() for what, h in table(all_).items()
    )
    found = (_panel(name, histogram) for name, histogram in named)
    return [panel for panel in found if panel and sum(panel.reference) > 0 and panel.moved >= LEAST]


def _panel(name: str, histogram: Any) -> Panel | None:
    edges, reference, batch = (_numbers(histogram.get(key)) for key in ("edges", "reference", "batch"))
    fits = len(edges) - 1 == len(reference) == len(batch) > 0
    return Panel(name, edges, reference, batch) if fits else None


def _numbers(value: object) -> tuple[float, ...]:
    found = [number(item) for item in value] if isinstance(value, list) else []
    return tuple(item for item in found if item is not None)


def _draw(axes: Axes, panel: Panel) -> None:
    axes.stairs(panel.reference, panel.edges, fill=True, color=MUTED, alpha=0.35)
    axes.stairs(panel.batch, panel.edges, fill=True, color=SERIES[0], alpha=0.22)
    axes.stairs(panel.batch, panel.edges, color=SERIES[0], linewidth=1.6)
    axes.set_title(panel.name, fontsize=9, pad=6)
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=4)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
