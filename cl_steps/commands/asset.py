"""`retain asset`: where an image went, from the intake that brought it to every version that it had a part in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from cl_steps import digests
from cl_steps.commands.wording import NONE, moment
from cl_steps.data.images import ImageFacts, inspect, quiet_pillow
from cl_steps.data.quarantine import Unusable, printable
from cl_steps.documents import Json
from cl_steps.errors import NoUsableData, UsageError
from cl_steps.repository.line import Line, resolve
from cl_steps.repository.mainline import reading
from cl_steps.trace.assets import Where, where
from cl_steps.trace.similar import near_duplicates

LABELS = {
    "learnt": "learnt by",
    "probe": "probe of",
    "held_out": "held out by",
    "replayed_by": "replayed by",
    "replay": "in replay of",
    "evaluation": "evaluates",
    "reference": "reference of",
    "descendants": "descendants",
}
HOW = {
    "learnt": "learnt it",
    "replayed": "trained on it again, from the replay buffer",
    "descends": "descends from a version that learnt it",
    None: "neither learnt it nor descends from a version that did",
}


def asset(what: str, dir: str, near: bool, json: bool) -> dict[str, Any] | str:
    """Where an image, a file or a SHA-256, went; with `near` where its near-duplicates went, too.

    Raises:
        UsageError: `what` is neither a file nor a SHA-256.
        NoUsableData: the line never saw it (nor, with `near`, anything like it).
    """
    line, sha256, content = resolve(dir), *named(what)
    copies = _copies(line, sha256, content) if near else ()
    try:
        found: Where | None = where(line, sha256)
    except NoUsableData:
        if not copies:
            raise
        found = None
    others = [(where(line, name), distance) for name, distance in copies]
    if json:
        return {
            "asset": found.document() if found else {"sha256": sha256, "known": False},
            "near": [{**other.document(), "distance": round(distance, 3)} for other, distance in others],
        }
    parts = [_text(found) if found else f"asset         {sha256}\n              the line never saw it"]
    parts += [_text(other, f"near, RMSE {distance:.2f} of 255") for other, distance in others]
    return "\n\n".join(parts)


def named(what: str) -> tuple[str, bytes | None]:
    """The SHA-256 of a file, with its bytes, or one that is given; raises UsageError for anything else."""
    if Path(what).is_file():
        content = Path(what).read_bytes()
        return digests.sha256(content), content
    if not re.fullmatch(r"[0-9a-fA-F]{64}", what):
        raise UsageError(f"{printable(what)!r} is neither a file nor a SHA-256 (64 hexadecimal digits)")
    return what.lower(), None


def span(versions: Sequence[str]) -> str:
    """Versions in few words: `v2 to v5, v9`."""
    numbers = [int(version[1:]) for version in versions]
    starts = [number for before, number in pairwise([-1, *numbers]) if number != before + 1]
    ends = [number for number, after in pairwise([*numbers, -1]) if after != number + 1]
    parts = (
        f"v{a}" if a == b else f"v{a}, v{b}" if b == a + 1 else f"v{a} to v{b}"
        for a, b in zip(starts, ends, strict=True)
    )
    return ", ".join(parts) or NONE


def _copies(line: Line, sha256: str, content: bytes | None) -> tuple[tuple[str, float], ...]:
    found = near_duplicates(line, _facts(line, content) if content is not None else sha256)
    return tuple((name, distance) for name, distance in found if name != sha256)


def _facts(line: Line, content: bytes) -> ImageFacts:
    with reading(line.git) as main:
        limits = main.params().ingest
    try:
        with quiet_pillow():
            return inspect(content, limits)
    except Unusable as fault:
        raise UsageError(f"the file is no picture that could be taken in: {fault.reason}") from fault


def _text(found: Where, title: str = "") -> str:
    rows = [("asset", found.sha256 + (f"  ({title})" if title else ""))]
    rows += [("", text) for text in _facts_text(found.facts)]
    if found.withdrawn:
        rows += _withdrawn_rows(found.withdrawn)
    rows += _listed("came in", _arrivals(found))
    rows += _listed("in batch of", (_run_text(row) for row in found.runs))
    rows += [(label, span(getattr(found, key))) for key, label in LABELS.items()]
    rows += _listed("teacher", _teachers(found.teachers))
    rows.append(("champion", f"{found.champion['version'] or NONE} {HOW[found.champion['how']]}"))
    if found.quarantined:
        rows += _listed(
            "quarantined", (f"{r['run']}: {r['file']} ({r['code']}: {r['reason']})" for r in found.quarantined)
        )
    if found.unread:
        rows.append(
            ("not known", f"{len(found.unread)} older datasets are no longer in the store and may have held it")
        )
    return "\n".join(f"{label:<14}{printable(text)}".rstrip() for label, text in rows)


def _arrivals(found: Where) -> list[str]:
    begun = "v1" in (*found.replay[:1], *found.evaluation[:1], *found.reference[:1])
    first = ["with v1: the line began with it"] if begun else []
    return [*first, *(f"{row['run']} on {moment(row['at'])}" for row in found.intakes)]


def _facts_text(facts: Json | None) -> Iterable[str]:
    if facts is None:
        return
    yield f'"{facts["text"]}"'
    sealed = ", sealed" if facts["sealed"] else ""
    told = (f"{key} {facts[key]}" for key in ("source", "licence", "consent") if facts[key])
    yield ", ".join((f"slice {facts['slice']}", f"split {facts['split']}{sealed}", *told))


def _withdrawn_rows(event: Json) -> list[tuple[str, str]]:
    erased = ", its bytes erased" if event["erase"] else ""
    return [
        ("withdrawn", f"by {event['by']} on {moment(event['at'])}{erased}: {event['reason']}"),
        ("", f"event {event['event']}"),
    ]


def _run_text(row: Json) -> str:
    ended = f"promoted as {row['version']}" if row["version"] else str(row["outcome"]).replace("_", " ")
    return f"{row['run']} on {moment(row['at'])}: {ended}"


def _teachers(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """One line where every teacher taught one version, as it is without rollbacks; several lines else."""
    taught: dict[str, list[str]] = {}
    for teacher, pupil in pairs:
        taught.setdefault(teacher, []).append(pupil)
    odd = [f"{teacher} taught {', '.join(pupils)}" for teacher, pupils in taught.items() if len(pupils) > 1]
    plain = {teacher: pupils[0] for teacher, pupils in taught.items() if len(pupils) == 1}
    if len(plain) <= 3:
        return [*(f"{teacher} taught {pupil}" for teacher, pupil in plain.items()), *odd]
    return [f"{span(list(plain))} taught {span(list(plain.values()))}, one each", *odd]


def _listed(label: str, texts: Iterable[str]) -> list[tuple[str, str]]:
    found = list(texts) or [NONE]
    return [(label if place == 0 else "", text) for place, text in enumerate(found)]
