"""The versions of a line as a timeline: the newest on top, each with its parent, its batch, and rollbacks across."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cl_steps.documents import Json
from cl_steps.report.graph import short
from cl_steps.report.overview import rows, table, text
from cl_steps.report.words import DASH, moment, whole

ROW, TOP, LANE, LEFT, WIDTH = 44, 30, 26, 26, 1056
MOST = 80
"""So many versions are drawn, those nearest to the one that the page is about, and v1."""


@dataclass(frozen=True)
class Stop:
    """A version on the timeline; `kind` is `self`, `parent` (of it), `left` (behind by a rollback) or `other`."""

    x: float
    y: float
    version: str
    kind: str
    champion: bool
    when: str
    data: str
    note: str


@dataclass(frozen=True)
class Timeline:
    """The stops, the paths from parents to children, the rollbacks as arcs; `text_x` is where the words begin."""

    stops: tuple[Stop, ...]
    paths: tuple[tuple[str, bool], ...]
    arcs: tuple[tuple[str, str], ...]
    text_x: float
    width: float
    height: float
    left_out: int


def timeline(document: Json) -> Timeline:
    """The timeline of a lineage document."""
    every = rows(document["line"])
    drawn = _nearest(every, text(document["version"]))
    trunk = _trunk(every, text(document["champion"]))
    x = {name: LEFT + LANE * lane for name, lane in _lanes(drawn, trunk).items()}
    y = {text(v.get("version")): TOP + ROW * place for place, v in enumerate(reversed(drawn))}
    right = max(x.values(), default=LEFT)
    arcs = tuple(_arcs(rows(document["rollbacks"]), x, y, right))
    return Timeline(
        stops=tuple(_stops(document, drawn, trunk, x, y)),
        paths=tuple(_paths(drawn, trunk, x, y)),
        arcs=arcs,
        text_x=right + 26 + (22 + 9 * len(arcs) if arcs else 0),
        width=WIDTH,
        height=TOP + ROW * len(drawn) - 14,
        left_out=len(every) - len(drawn),
    )


def _stops(
    document: Json, drawn: Sequence[Json], trunk: set[str], x: Mapping[str, float], y: Mapping[str, float]
) -> Iterator[Stop]:
    about, champion = text(document["version"]), text(document["champion"])
    parents, bases = {text(name) for name in document["chain"]}, _bases(drawn)
    for version in reversed(drawn):
        name = text(version.get("version"))
        kind = "self" if name == about else "parent" if name in parents else "other" if name in trunk else "left"
        words = (moment(version.get("created")), _data(version), _note(version, bases))
        yield Stop(x[name], y[name], name, kind, name == champion, *words)


def _nearest(every: Sequence[Json], about: str) -> list[Json]:
    if len(every) <= MOST:
        return list(every)
    place = next((at for at, v in enumerate(every) if text(v.get("version")) == about), len(every))
    start = min(max(1, place - MOST // 2), len(every) - MOST + 1)
    return [every[0], *every[start : start + MOST - 1]]


def _trunk(every: Sequence[Json], champion: str) -> set[str]:
    """The champion and its parents."""
    parents = {text(v.get("version")): text(v.get("parent")) for v in every}
    found: set[str] = set()
    while champion in parents and champion not in found:
        found.add(champion)
        champion = parents[champion]
    return found


def _lanes(drawn: Sequence[Json], trunk: set[str]) -> dict[str, int]:
    """The trunk is lane 0; each branch that was left behind takes the first lane that is free from its parent on."""
    lanes: dict[str, int] = {}
    ends: list[int] = []
    places = {text(v.get("version")): place for place, v in enumerate(drawn)}
    continued: set[str] = set()
    for place, version in enumerate(drawn):
        name, parent = text(version.get("version")), text(version.get("parent"))
        if name in trunk:
            lanes[name] = 0
        elif lanes.get(parent, 0) and parent not in continued:
            lanes[name] = lanes[parent]
            continued.add(parent)
            ends[lanes[name] - 1] = place
        else:
            start = places.get(parent, 0)
            free = next((lane for lane, end in enumerate(ends) if end <= start), len(ends))
            ends[free : free + 1] = [place]
            lanes[name] = free + 1
    return lanes


def _paths(
    drawn: Sequence[Json], trunk: set[str], x: Mapping[str, float], y: Mapping[str, float]
) -> Iterator[tuple[str, bool]]:
    """From each version up to its child, and whether it is of the trunk."""
    for version in drawn:
        name, parent = text(version.get("version")), text(version.get("parent"))
        if parent in y:
            below, turn = y[parent], y[parent] - ROW / 2
            start = f"M{x[parent]:g} {below:g}"
            bend = (
                ""
                if x[parent] == x[name]
                else f"C{x[parent]:g} {turn:g} {x[name]:g} {below:g} {x[name]:g} {below - ROW:g}"
            )
            yield f"{start}{bend}V{y[name]:g}", name in trunk


def _arcs(
    rollbacks: Sequence[Json], x: Mapping[str, float], y: Mapping[str, float], right: float
) -> Iterator[tuple[str, str]]:
    """A rollback as a dashed arc from the version that was left to the one restored, and its words."""
    for place, event in enumerate(rollbacks):
        start, end = text(event.get("from")), text(event.get("to"))
        if start in y and end in y:
            out = right + 22 + 9 * place
            path = f"M{x[start] + 9:g} {y[start]:g}C{out:g} {y[start]:g} {out:g} {y[end]:g} {x[end] + 12:g} {y[end]:g}"
            yield path, f"rollback from {start} to {end} by {text(event.get('by'))}: {text(event.get('reason'))}"


def _bases(drawn: Sequence[Json]) -> dict[str, str]:
    """The versions that begin with a base of their own, and it."""
    found, before = {}, ""
    for version in drawn:
        base = text(version.get("base"))
        if base and base != before:
            found[text(version.get("version"))] = base
        before = base or before
    return found


def _data(version: Json) -> str:
    if version.get("assets") is None:
        return "the base as it came" if not version.get("parent") else DASH
    slices = ", ".join(f"{text(name)} {whole(count)}" for name, count in table(version.get("slices")).items())
    return short(f"{whole(version['assets'])} images: {slices}", 78)


def _note(version: Json, bases: Mapping[str, str]) -> str:
    base = bases.get(text(version.get("version")))
    words = [f"base {base[:10]}"] if base else []
    if version.get("approved"):
        words.append("approved by a person")
    if version.get("withdrawn"):
        words.append("images of it were withdrawn")
    return ", ".join(words)
