"""What a landing would give, said before anything is taken in: `retain check`, and why `retain init` takes nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from cl_steps.config import Params
from cl_steps.data.intake import Intake, take_in
from cl_steps.data.shards import SPLITS
from cl_steps.documents import Json
from cl_steps.landing.place import source_of
from cl_steps.stats.paired import MIN_UNITS

RUN = "check"
NUM_EXAMPLES = 3
SHAPES = ((1, 1), (5, 4), (4, 3), (3, 2), (16, 9), (2, 1), (3, 1), (4, 1))
"""Width to height, and each turned: pictures are told by the nearest."""


def check(place: str, params: Params, base: Path | None) -> dict[str, Any]:
    """What would be taken of the landing at a folder or URL, and why the rest would not.

    Args:
        place: where it is.
        params: the line's.
        base: the pipeline whose text encoders read the captions; None where there is none yet.

    Raises:
        NoUsableData: there is no such landing.
        Unavailable: it is away.
    """
    intake = take_in(source_of(place), params.ingest, params.seed, RUN)
    rows = intake.assets.manifest.to_pylist()
    return {
        "place": place,
        "arrived": intake.landed.arrived,
        "counts": dict(intake.counts),
        "notes": list(intake.landed.words()),
        "refused": refusals(intake),
        "slices": {name: _slice(own, params) for name, own in sorted(_by_slice(rows).items())},
        "captions": _captions([row["text"] for row in rows], base),
        "pictures": _pictures(rows),
    }


def refusals(intake: Intake) -> list[dict[str, Any]]:
    """What was set aside, by code, the most frequent first: how often, what to do, and some names."""
    found: dict[str, list[Any]] = {}
    for thing in intake.quarantine:
        found.setdefault(thing.code, []).append(thing)
    rows = [
        {
            "code": code,
            "count": len(things),
            "reason": Counter(thing.reason for thing in things).most_common(1)[0][0],
            "examples": [thing.file for thing in things[:NUM_EXAMPLES]],
        }
        for code, things in found.items()
    ]
    return sorted(rows, key=lambda row: (-row["count"], row["code"]))


def why_nothing(intake: Intake) -> str:
    """Why nothing of a landing can be used, in a few words."""
    told = [f"{row['count']} x {row['reason']} (as {row['examples'][0]!r})" for row in refusals(intake)[:NUM_EXAMPLES]]
    return "; ".join([*told, *intake.landed.words()]) or "it is empty"


def check_text(found: Json) -> str:
    """The same as a table for a terminal."""
    counts = found["counts"]
    parts = [
        [("arrived", f"{found['arrived']} files; nothing is taken in by this command")],
        [("would take", f"{counts['new']} pictures{_pictures_text(found['pictures'])}")],
        [("the same", f"{counts['duplicates']} copies, and {counts['near_duplicates']} nearly the same as another")],
        [("", note) for note in found["notes"]],
        [("" if place else "would not", text) for place, text in enumerate(map(_refusal, found["refused"]))],
        [(f"slice {name}", _slice_text(own)) for name, own in found["slices"].items()],
        [("captions", _captions_text(found["captions"]))] if found["captions"] else [],
    ]
    rows = [row for part in parts for row in part]
    width = max(len(label) for label, _ in rows) + 2
    return "\n".join(f"{label:<{width}}{text}".rstrip() for label, text in rows)


def _by_slice(rows: Iterable[Json]) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {}
    for row in rows:
        found.setdefault(row["slice"], []).append(row)
    return found


def _slice(rows: list[Json], params: Params) -> dict[str, Any]:
    """What a slice would have, and what it still needs: held-out groups that the gate may look at, and new pictures."""
    splits = Counter(row["split"] for row in rows)
    held_out = {row["group"] for row in rows if row["split"] == "evaluation" and not row["sealed"]}
    ingest = params.ingest
    open_share = ingest.evaluation_share * (1 - ingest.sealed_share)
    lacking = max(0, math.ceil((MIN_UNITS - len(held_out)) / open_share))
    return {
        "pictures": len(rows),
        **{split: splits[split] for split in SPLITS},
        "held_out": len(held_out),
        "needs": max(lacking, params.drift.min_new_slice - len(rows), 0),
    }


def _captions(texts: list[str], base: Path | None) -> dict[str, Any]:
    if not texts:
        return {}
    lengths = [len(text) for text in texts]
    found = {"shortest": min(lengths), "median": int(median(lengths)), "longest": max(lengths), "cut": None}
    if base:
        from cl_steps.models.readers import num_cut, readers_of

        found["cut"] = num_cut(texts, readers_of(base))
    return found


def _pictures(rows: list[Json]) -> dict[str, Any]:
    if not rows:
        return {}
    sizes = sorted(((row["width"], row["height"]) for row in rows), key=lambda size: size[0] * size[1])
    shapes = Counter(_shape(*size) for size in sizes)
    return {
        "smallest": list(sizes[0]),
        "largest": list(sizes[-1]),
        "shapes": dict(shapes.most_common()),
        "transparent": sum(bool(row["background"]) for row in rows),
    }


def _shape(width: int, height: int) -> str:
    """The nearest of `SHAPES`, as `4:3`."""
    every = {*SHAPES, *((low, high) for high, low in SHAPES)}
    own = math.log(width / height)
    return "{}:{}".format(*min(sorted(every), key=lambda shape: abs(own - math.log(shape[0] / shape[1]))))


def _refusal(row: Json) -> str:
    return f"{row['count']} x {row['code']}: {row['reason']} ({', '.join(row['examples'])})"


def _slice_text(own: Mapping[str, int]) -> str:
    parts = ", ".join(f"{own[split]} {split}" for split in SPLITS)
    enough = f"about {own['needs']} more are needed for the gate to decide" if own["needs"] else "enough for the gate"
    return f"{own['pictures']} pictures ({parts}): {enough}"


def _captions_text(found: Json) -> str:
    lengths = f"{found['shortest']} to {found['longest']} characters, half of them up to {found['median']}"
    if found["cut"] is None:
        return f"{lengths}; name the base (--base) to see how many it reads to their end"
    return f"{lengths}; {found['cut']} are longer than the base reads, and their ends have no say"


def _pictures_text(found: Json) -> str:
    if not found:
        return ""
    shapes = ", ".join(f"{count} of about {shape}" for shape, count in found["shapes"].items())
    clear = f"; {found['transparent']} transparent, put on the line's background" if found["transparent"] else ""
    small, large = ("x".join(map(str, found[key])) for key in ("smallest", "largest"))
    return f", {small} to {large}: {shapes}{clear}"
