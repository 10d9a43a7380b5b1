"""What there is to tell about a line, as plain data: its versions and its nights.

Everything here was written by steps and people and is hostile until it is shown: reports may lack keys or hold other
types than they should. `table`, `number` and `rows` read such values without ever failing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cl_steps.config import Params
from cl_steps.documents import Json, json_text

Table = Json
Report = Json


@dataclass(frozen=True)
class Pictures:
    """What a run left to look at, name to content; `gone` names the folders that the store no longer holds whole."""

    samples: Mapping[str, bytes] = field(default_factory=dict)
    drift: Mapping[str, bytes] = field(default_factory=dict)
    gone: tuple[str, ...] = ()


@dataclass(frozen=True)
class Night:
    """One run: its event (`outcome: running` where it has none yet), its reports by step, and its pictures.

    `answer` is what a person said to it, if they did; `params` are the parameters it ran with.
    """

    event: Report
    reports: Mapping[str, Report] = field(default_factory=dict)
    pictures: Pictures = field(default_factory=Pictures)
    answer: Report | None = None
    params: Params = field(default_factory=Params)

    @property
    def run(self) -> str:
        """The run's id."""
        return text(self.event.get("run"))

    @property
    def outcome(self) -> str:
        """How it ended, in one word."""
        return text(self.event.get("outcome")) or "running"

    @property
    def version(self) -> str | None:
        """The version that it made, if it made one."""
        return text(self.event.get("version")) or None

    def figures(self, step: str) -> Table:
        """The figures of a step's report; empty where there is none."""
        return table(table(self.reports.get(step)).get("figures"))

    def verdict(self, step: str) -> str | None:
        """A step's verdict, from its report or, where that is pruned, from the event."""
        return text(table(self.reports.get(step)).get("verdict")) or text(self.event.get(step)) or None

    def why(self, step: str) -> str:
        """A step's reason, one sentence."""
        return text(table(self.reports.get(step)).get("why"))

    def did(self, step: str) -> bool:
        """Whether the step ran to its end and was not skipped."""
        return table(self.reports.get(step)).get("status") == "done"


@dataclass(frozen=True)
class Overview:
    """A line's name, its champion, every version's record, and its nights, oldest first."""

    line: str
    champion: str
    versions: tuple[Report, ...]
    nights: tuple[Night, ...]

    def record(self, version: str | None) -> Report | None:
        """The record of a version."""
        return next((record for record in self.versions if version and record.get("version") == version), None)


def scores(night: Night) -> Iterator[tuple[str, str, dict[str, float]]]:
    """(slice, metric, {model: value}) of every figure that was measured in a night."""
    for name, metrics in sorted(table(night.figures("evaluate").get("slices")).items()):
        for metric, values in sorted(table(metrics).items()):
            found = {model: number(value) for model, value in table(values).items()}
            yield text(name), text(metric), {model: value for model, value in found.items() if value is not None}


def new_slices(night: Night) -> tuple[str, ...]:
    """The slices that a night's candidate learnt and the champion did not know."""
    found = night.figures("evaluate").get("new_slices")
    return tuple(text(name) for name in found) if isinstance(found, list) else ()


def table(value: object) -> Table:
    """`value` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def rows(value: object) -> list[Table]:
    """The mappings in `value` if it is a list, else none."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def number(value: object) -> float | None:
    """`value` as a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def text(value: object) -> str:
    """`value` as text, with nothing in it that cannot be printed; empty for None."""
    if value is None:
        return ""
    return "".join(letter if letter.isprintable() else " " for letter in str(value))


def legible_json(document: Table) -> str:
    """As JSON, with what hides or turns what a person reads as its escapes."""
    written = json_text(document)
    return "".join(letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1] for letter in written)
