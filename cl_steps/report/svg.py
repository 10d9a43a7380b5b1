"""A matplotlib figure as a piece of the page: inline SVG that takes its colours from the page's style.

Figures are drawn in the placeholder colours of `COLOURS`; what comes out says `var(--ink)` and follows the reader's
light or dark theme. The same figure gives the same bytes: no dates, no random ids, and texts stay text. Only the
elements of `ALLOWED` come through, so that no hostile label can become anything but a label.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE, PAPER, GOOD, WARN, BAD = (f"#00000{digit}" for digit in range(1, 8))
SERIES = tuple(f"#0000f{digit}" for digit in range(8))
COLOURS = {
    INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper", GOOD: "good", WARN: "warn", BAD: "bad",
    **{colour: f"s{place}" for place, colour in enumerate(SERIES)},
}  # fmt: skip
"""Placeholder colour to the name of the CSS variable that replaces it."""
PLACEHOLDER = re.compile("|".join(COLOURS))
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "retain",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.edgecolor": RULE,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.titlepad": 12,
}
WIDTH = 10.0
"""Of every figure, in inches; the page shows it as wide as itself."""
ALLOWED = {"svg", "g", "path", "defs", "clipPath", "rect", "use", "text", "tspan"}
DROPPED = {"metadata", "style"}


@dataclass(frozen=True)
class Margins:
    """Around the axes of a figure, in inches."""

    left: float
    right: float = 0.1
    top: float = 0.1
    bottom: float = 0.3


@contextmanager
def styled() -> Iterator[None]:
    """Figures are made, drawn on and saved inside of this."""
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it tells of its first use of a machine
    from matplotlib import rc_context

    with rc_context(STYLE):
        yield


def new_axes(
    rows: Sequence[float], columns: int, margins: Margins, gap: tuple[float, float]
) -> tuple[Figure, list[Axes]]:
    """An empty figure `WIDTH` inches wide, and its axes row by row.

    Args:
        rows: each row's height.
        columns: axes in a row.
        margins: around all axes.
        gap: across and down between axes.

    All in inches: nothing is measured and moved, which takes longer than drawing.
    """
    from matplotlib.figure import Figure

    height = sum(rows) + gap[1] * (len(rows) - 1) + margins.top + margins.bottom
    figure = Figure(figsize=(WIDTH, height))
    figure.patch.set_alpha(0)
    wide = (WIDTH - margins.left - margins.right - gap[0] * (columns - 1)) / columns
    top, axes = height - margins.top, []
    for tall in rows:
        lefts = [margins.left + column * (wide + gap[0]) for column in range(columns)]
        boxes = [(left / WIDTH, (top - tall) / height, wide / WIDTH, tall / height) for left in lefts]
        axes += [figure.add_axes(box) for box in boxes]
        top -= tall + gap[1]
    return figure, axes


def to_svg(figure: Figure, name: str, alt: str) -> Markup:
    """The figure as an `<svg>` element for a page.

    Args:
        figure: drawn in the colours above.
        name: unlike that of any other figure of the page; ids begin with it. Letters, digits and dashes.
        alt: what a person who cannot see it is told.
    """
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # Hostile or merely foreign labels: widths are then estimated, and the reader's browser has the glyphs.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    root = ElementTree.fromstring(stream.getvalue())  # noqa: S314 - matplotlib wrote it, just now
    _clean(root)
    _name_ids(root, name)
    view = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib.update({"class": "plot", "role": "img", "aria-label": alt, "viewBox": view})
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - allowed elements only, escaped


def _clean(element: ElementTree.Element) -> None:
    """Plain names, themed colours, only what is allowed."""
    element.tag = element.tag.partition("}")[2]
    assert element.tag in ALLOWED, f"a plot holds <{element.tag}>"
    plain = {key.partition("}")[2] if "}" in key else key: value for key, value in element.attrib.items()}
    element.attrib.clear()
    element.attrib.update({key: _themed(value) for key, value in plain.items()})
    for child in list(element):
        if child.tag.partition("}")[2] in DROPPED:
            element.remove(child)
        else:
            _clean(child)


def _themed(value: str) -> str:
    return PLACEHOLDER.sub(lambda found: f"var(--{COLOURS[found[0]]})", value)


def _name_ids(root: ElementTree.Element, name: str) -> None:
    """Keep the ids that something refers to, unique on the page."""
    texts = " ".join(value for element in root.iter() for value in element.attrib.values())
    used = set(re.findall(r"#([A-Za-z][\w-]*)", texts))
    for element in root.iter():
        if "id" in element.attrib:
            identity = element.attrib.pop("id")
            if identity in used:
                element.set("id", f"{name}-{identity}")
        for key, value in element.attrib.items():
            element.set(key, re.sub(r"(^|url\()#([A-Za-z])", rf"\1#{name}-\2", value))
