"""The page of `retain diff`: what changed from one version to another, with the pictures of both.

The document comes from `cl_steps.trace.changes`; all of its texts may be hostile and are escaped by the template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cl_steps.documents import Json
from cl_steps.report.overview import legible_json, number, rows, table, text
from cl_steps.report.page import environment
from cl_steps.report.samples import Pair, Picture, pairs
from cl_steps.report.words import DASH, Grid, Pill, moment, whole

LOWER_IS_BETTER = ("loss", "kid")
SOFTWARE = ("code", "image", "python", "devices", "machine")
FIGURES = ("old", "new", "difference")
RELATIVE = ("loss", "diversity")
"""Metrics whose margins are shares of what was before."""


@dataclass(frozen=True)
class Shown:
    """A slice's pictures: rows of a label, the version, the picture, and the captions of it."""

    slice: str
    rows: tuple[tuple[str, Picture, tuple[str, ...]], ...]
    tiny: bool


@dataclass(frozen=True)
class DiffView:
    """The page, nothing left to decide for the template."""

    old: str
    new: str
    relation: str
    facts: tuple[tuple[str, str, str], ...]
    data: tuple[tuple[str, Grid, Grid], ...]
    gone: tuple[str, ...]
    parameters: Grid | None
    software: Grid | None
    digests: Grid | None
    metrics: Grid | None
    metrics_note: str
    pictures: tuple[Shown, ...]
    pictures_note: str
    document: str


def render(document: Json, folders: Sequence[Mapping[str, bytes]], note: str) -> str:
    """The page as HTML.

    Args:
        document: what changed.
        folders: sample grids: one folder that holds both models' of the same prompts, or one of each version.
        note: a sentence on what the pictures are.
    """
    return environment().get_template("diff.html.j2").render(page=view(document, folders, note))


def view(document: Json, folders: Sequence[Mapping[str, bytes]], note: str) -> DiffView:
    """The page of a document of changes."""
    old, new, data = text(document["old"]), text(document["new"]), table(document["data"])
    return DiffView(
        old=old,
        new=new,
        relation=text(document["relation"]) + ("" if document["base"].get("same") else "; the base is another"),
        facts=_facts(document),
        data=tuple(_data(data)),
        gone=tuple(map(text, data.get("not_in_the_store") or ())),
        parameters=_changed(rows(document["parameters"]), "parameter", old, new),
        software=_software(document, old, new),
        digests=_changed(rows(document["digests"]), "what", old, new),
        metrics=_metrics(document, old, new),
        metrics_note="Both were measured on the same images, prompts and seeds."
        if document["paired"]
        else "Each was measured in its own night, on its own prompts and seeds: small differences say little.",
        pictures=_pictures(old, new, folders),
        pictures_note=note,
        document=legible_json(document),
    )


def _facts(document: Json) -> tuple[tuple[str, str, str], ...]:
    data = table(document["data"])
    learnt, replay, evaluation = (table(data.get(key)) for key in ("learnt", "replay", "evaluation"))
    created = table(document["created"])
    came, went = (whole(table(replay.get(way)).get("assets")) for way in ("in", "out"))
    changed, days = len(document["parameters"]), (moment(created.get(key))[:10] for key in ("old", "new"))
    return (
        ("Images learnt between", whole(learnt.get("assets")), _slices(learnt) or "none"),
        ("Replay buffer", whole(replay.get("new")), f"{came} came in, {went} went out"),
        ("Evaluation set", whole(evaluation.get("new")), f"{whole(evaluation.get('old'))} before"),
        (
            "Parameters changed",
            whole(changed),
            " to ".join(days),
        ),
    )


def _data(data: Json) -> list[tuple[str, Grid, Grid]]:
    """Per set: how many of which slice, and examples."""
    parts = {"learnt between": table(data.get("learnt")), "learnt by the old one alone": table(data.get("no_longer"))}
    for name, label in (("replay", "replay buffer"), ("evaluation", "evaluation set")):
        for way, words in (("in", "came into"), ("out", "went out of")):
            parts[f"{words} the {label}"] = table(table(data.get(name)).get(way))
    found = []
    for title, part in parts.items():
        if part.get("assets"):
            slices = tuple((text(name), whole(count)) for name, count in table(part.get("slices")).items())
            counts = Grid(("slice", "images"), slices, (1,))
            found.append((f"{title}: {whole(part['assets'])}", counts, _examples(rows(part.get("examples")))))
    return found


def _examples(found: Sequence[Json]) -> Grid:
    lines = ((text(row.get("sha256"))[:12], text(row.get("text")), text(row.get("slice"))) for row in found)
    return Grid(("asset", "caption", "slice"), tuple(lines))


def _slices(part: Json) -> str:
    return ", ".join(text(name) for name in list(table(part.get("slices")))[:5])


def _changed(found: Sequence[Json], heading: str, old: str, new: str) -> Grid | None:
    lines = [(text(row.get("key")), text(row.get("old")) or DASH, text(row.get("new")) or DASH) for row in found]
    return Grid((heading, old, new), tuple(lines)) if lines else None


def _software(document: Json, old: str, new: str) -> Grid | None:
    own = [{"key": key, **table(document[key])} for key in SOFTWARE if not table(document[key]).get("same")]
    plain = [{**row, **{k: ", ".join(map(text, v)) for k, v in row.items() if isinstance(v, list)}} for row in own]
    return _changed([*plain, *rows(document["libraries"])], "what", old, new)


def _metrics(document: Json, old: str, new: str) -> Grid | None:
    lines = []
    for row in rows(document["metrics"]):
        before, after, apart = (number(row.get(key)) for key in FIGURES)
        figures = (_figure(before), _figure(after), _figure(apart, "+"))
        margin = number(table(document["margins"]).get(text(row.get("metric"))))
        mark = _mark(text(row.get("metric")), before, apart, margin)
        lines.append((text(row.get("slice")), text(row.get("metric")), *figures, mark))
    return Grid(("slice", "metric", old, new, "difference", ""), tuple(lines), (2, 3, 4)) if lines else None


def _figure(found: float | None, sign: str = "") -> str:
    return DASH if found is None else f"{found:{sign}.4f}"


def _mark(metric: str, before: float | None, apart: float | None, margin: float | None) -> str | Pill:
    """A difference beyond a night's margin as a pill; smaller ones say little."""
    if before is None or apart is None or margin is None:
        return ""
    if abs(apart) <= margin * (abs(before) if metric in RELATIVE else 1):
        return ""
    return Pill("better", "good") if (apart < 0) == (metric in LOWER_IS_BETTER) else Pill("worse", "warn")


def _pictures(old: str, new: str, folders: Sequence[Mapping[str, bytes]]) -> tuple[Shown, ...]:
    if len(folders) == 1:
        return tuple(_together(pair, old, new) for pair in pairs(folders[0]))
    mine, theirs = ({pair.slice: pair for pair in pairs(files)} for files in folders)
    names = sorted({*mine, *theirs})
    return tuple(_one_each(name, (old, mine.get(name)), (new, theirs.get(name))) for name in names)


def _together(pair: Pair, old: str, new: str) -> Shown:
    """One set of captions under both rows."""
    both = ((old, pair.before), (new, pair.after))
    found = [(name, picture) for name, picture in both if picture]
    return Shown(
        pair.slice,
        tuple((n, p, pair.captions if at == len(found) - 1 else ()) for at, (n, p) in enumerate(found)),
        pair.tiny,
    )


def _one_each(name: str, *both: tuple[str, Pair | None]) -> Shown:
    found = [(version, pair) for version, pair in both if pair and pair.after]
    lines = tuple((version, pair.after, pair.captions) for version, pair in found if pair.after)
    return Shown(name, lines, all(pair.tiny for _, pair in found))
