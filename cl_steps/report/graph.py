"""The graph of what made one version: boxes and the curves between them, ready for the template to draw as SVG."""

from __future__ import annotations

from dataclasses import dataclass

from cl_steps.documents import Json
from cl_steps.report.overview import table, text
from cl_steps.report.words import DASH, whole

WIDTH, HEIGHT, GAP = 268, 58, 16
LETTERS = 36
"""So many fit into a box."""
COLUMNS = (1, 396, 791)
"""Where inputs, the version, and what followed stand, in units of the drawing."""


@dataclass(frozen=True)
class Box:
    """A box with a heading and a line under it; `kind` gives it its colour."""

    x: float
    y: float
    title: str
    note: str
    kind: str

    @property
    def middle(self) -> float:
        """Half way down."""
        return self.y + HEIGHT / 2


@dataclass(frozen=True)
class Graph:
    """Boxes of one size and the paths between them, `width` by `height`."""

    boxes: tuple[Box, ...]
    paths: tuple[str, ...]
    width: float
    height: float
    box: tuple[int, int] = (WIDTH, HEIGHT)


def made_graph(document: Json) -> Graph:
    """Inputs at the left, the version in the middle, its judges and its children at the right."""
    given, then = _inputs(document), _outcomes(document)
    rows = max(len(given), len(then), 1)
    height = rows * HEIGHT + (rows - 1) * GAP + 2
    inputs = _column(given, COLUMNS[0], height)
    outcomes = _column(then, COLUMNS[2], height)
    title = text(document["version"])
    note = (
        "the champion" if document["version"] == document["champion"] else short(f"code {text(document['code'])}", 22)
    )
    [made] = _column([(title, note, "made")], COLUMNS[1], height)
    paths = [*(_curve(box, made) for box in inputs), *(_curve(made, box) for box in outcomes)]
    return Graph((*inputs, made, *outcomes), tuple(paths), COLUMNS[2] + WIDTH + 1, height)


def short(words: str, letters: int = LETTERS) -> str:
    """Words that fit; the rest is an ellipsis."""
    return words if len(words) <= letters else f"{words[: letters - 1]}…"


def _inputs(document: Json) -> list[tuple[str, str, str]]:
    data, replay, teacher = (table(document[key]) for key in ("data", "replay", "teacher"))
    rebase = table(document["rebase"])
    found = [("new base" if rebase else "base", short(text(document["base"]) or DASH, 20), "fixed")]
    if teacher:
        started = "on another base: compared with it" if rebase else "the parent: where it started"
        distils = "the parent: start and teacher" if teacher.get("distilled") else started
        found.append((text(teacher.get("version")), distils, "version"))
    if data:
        slices = ", ".join(text(name) for name in table(data.get("slices")))
        found.append((f"batch: {whole(data.get('assets'))} images", short(slices), "data"))
    if replay.get("from"):
        found.append((f"replay: {whole(replay.get('examples'))} images", "of what the parent kept", "data"))
    return [*found, ("extractor", short(text(document["extractor"]) or DASH, 20), "fixed")]


def _outcomes(document: Json) -> list[tuple[str, str, str]]:
    gate, drift = (table(table(document["checks"]).get(key)) for key in ("gate", "drift"))
    found = []
    if drift.get("verdict"):
        why = text(drift.get("why")).removeprefix(f"{text(drift['verdict'])}: ")
        found.append((f"drift: {text(drift['verdict'])}", short(why), "judge"))
    if gate.get("verdict"):
        found.append((f"gate: {text(gate['verdict'])}", f"{len(gate.get('checks') or ())} checks", "judge"))
    approval = table(document["approval"])
    if approval:
        found.append((f"a person said {text(approval.get('answer'))}", short(text(approval.get("by"))), "judge"))
    signed = [text(name) for name, there in table(document["signatures"]).items() if there]
    found.append(
        ("signed" if signed else "unsigned", short(", ".join(signed)) or "no signature beside the record", "judge")
    )
    children = [text(name) for name in document["children"]]
    return [*found, (f"taught {', '.join(children[:4])}", "made from this version", "version")] if children else found


def _column(found: list[tuple[str, str, str]], x: float, height: float) -> list[Box]:
    """Boxes one under another, the column in the middle of the height."""
    tall = len(found) * HEIGHT + (len(found) - 1) * GAP
    top = (height - tall) / 2
    return [Box(x, top + place * (HEIGHT + GAP), *words) for place, words in enumerate(found)]


def _curve(first: Box, second: Box) -> str:
    """From the right side of one box to the left side of another."""
    x, end, half = first.x + WIDTH, second.x - 5, (first.x + WIDTH + second.x) / 2
    return f"M{x:g} {first.middle:g}C{half:g} {first.middle:g} {half:g} {second.middle:g} {end:g} {second.middle:g}"
