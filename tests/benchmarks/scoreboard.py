"""The scoreboard: every figure that we claim, with how it was made, in `results.json`; `make scoreboard` is its table.

Whatever measures writes its figures by `record` under a name `group/figure`. An entry stands for the last time that it
was measured in this form on such a device: the one before it goes.
"""

from __future__ import annotations

import operator
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError, model_validator

from cl_steps.config import Block
from cl_steps.documents import write_json
from cl_steps.errors import UsageError

HERE = Path(__file__).parent
RESULTS, README = HERE / "results.json", HERE / "README.md"
BEGIN, END = "<!-- scoreboard: begin -->", "<!-- scoreboard: end -->"
GROUPS = ("models", "learning", "drift", "gate", "ingest", "night", "likes")
DIRECTIONS: Mapping[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}
GOAL = rf"({'|'.join(DIRECTIONS)}) \d+(\.\d+)?"

Line = Annotated[str, StringConstraints(pattern=r"^[^|\n]*$")]
"""Text that a table's cell holds."""
Words = Annotated[Line, Field(min_length=1)]


class Entry(Block):
    """One figure.

    Attributes:
        name: `group/figure`, such as `models/SDXL, a step: ours / diffusers`.
        goal: `<= 1.2` or `>= 1.5`, in the figure's unit; None where nothing is claimed.
        holds: whether the figure reaches its goal; None without one.
        form: what exactly was measured, as far as the name leaves it open: precision, sizes, CPU or wall.
        device: what it ran on, in words that fit every machine of its kind.
        seeds: of the runs that the figure is a summary of; empty where chance has no say in it.
        command: what measures it again.
        commit: what was measured; with a `+` where files were changed since.
    """

    name: Annotated[str, StringConstraints(pattern=rf"^({'|'.join(GROUPS)})/[^|\n]+$")]
    value: float
    unit: Line
    goal: Annotated[str, StringConstraints(pattern=f"^{GOAL}$")] | None
    holds: bool | None
    form: Line
    device: Words
    seeds: tuple[int, ...]
    command: Words
    commit: Words

    @model_validator(mode="after")
    def _judged_by_its_goal(self) -> Entry:
        if self.holds != reaches(self.value, self.goal):
            raise ValueError(f"{self.name} says holds: {self.holds}, which its value and goal do not: record it again")
        return self

    @property
    def key(self) -> tuple[int, str, str, str]:
        """What no two entries have in common, and the order in which they stand."""
        return GROUPS.index(self.name.partition("/")[0]), self.name, self.form, self.device


ENTRIES = TypeAdapter(tuple[Entry, ...])


def reaches(value: float, goal: str | None) -> bool | None:
    """Whether a figure is what its goal says; None without a goal."""
    if goal is None:
        return None
    direction, _, bound = goal.partition(" ")
    return DIRECTIONS[direction](value, float(bound))


@dataclass(frozen=True)
class Scoreboard:
    """Where what is measured by one command goes.

    Attributes:
        form: is added to each figure's own.
        commit: of another checkout, where it was not measured in this one.
    """

    command: str
    device: str
    form: str = ""
    commit: str = ""
    file: Path = RESULTS

    def record(
        self,
        name: str,
        value: float,
        unit: str = "",
        *,
        goal: str | None = None,
        form: str = "",
        seeds: Iterable[int] = (),
    ) -> Entry:
        """Enter a figure, in place of an older one of the same name, form and device.

        Raises:
            UsageError: the file, or the figure, is not as `Entry` says.
        """
        if goal is not None and not re.fullmatch(GOAL, goal):
            raise UsageError(f"{name} has the goal {goal!r}: write it as '<= 1.2' or '>= 1.5'")
        try:
            new = Entry(
                name=name,
                value=float(f"{value:.4g}"),
                unit=unit,
                goal=goal,
                holds=reaches(float(f"{value:.4g}"), goal),
                form=", ".join(part for part in (form, self.form) if part),
                device=self.device,
                seeds=tuple(seeds),
                command=self.command,
                commit=self.commit or commit(),
            )
        except ValidationError as error:
            raise UsageError(f"{name} is no figure of the scoreboard: {error.errors()[0]['msg']}") from error
        others = [entry for entry in read(self.file) if entry.key != new.key]
        entries = sorted([*others, new], key=lambda entry: entry.key)
        write_json(self.file, ENTRIES.dump_python(tuple(entries), mode="json"))
        return new


def read(file: Path = RESULTS) -> tuple[Entry, ...]:
    """The entries of a file; none where there is no file.

    Raises:
        UsageError: it is not what `record` writes.
    """
    if not file.exists():
        return ()
    try:
        entries = ENTRIES.validate_json(file.read_bytes())
    except ValidationError as error:
        wrong = error.errors()[0]
        raise UsageError(f"{file.name} is not as `record` writes it, at {wrong['loc']}: {wrong['msg']}") from error
    keys = [entry.key for entry in entries]
    if keys != sorted(set(keys)):
        raise UsageError(f"{file.name} is not as `record` writes it: each entry once, sorted by group, name and form")
    return entries


def this_machine() -> str:
    """How many cores of what kind."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} {platform.machine().replace('_', '-')} cores"


def busy() -> str:
    """What to add to a form where more wants to run on this machine than it has cores; empty where it is idle."""
    return "busy machine" if os.getloadavg()[0] > (os.cpu_count() or 1) else ""


def commit() -> str:
    """The commit of this checkout; with a `+` where a file of it, this scoreboard apart, was changed since."""
    name = _git("rev-parse", "--short=10", "HEAD")
    own = (f":(exclude,top){path.relative_to(HERE.parents[1])}" for path in (RESULTS, README))
    return name + "+" * bool(_git("status", "--porcelain", "--untracked-files=no", "--", ":/", *own)) or "unknown"


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(HERE), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def table(entries: Iterable[Entry]) -> Iterator[str]:
    """The lines of the table, in Markdown: what we claim first, and below it what is known beside that."""
    entries = list(entries)
    yield "| what we claim | goal | figure | holds | form | device | commit |"
    yield "|---|---|---|---|---|---|---|"
    for entry in (entry for entry in entries if entry.goal):
        holds = "yes" if entry.holds else "**no**"
        yield f"| {entry.name} | {entry.goal} | {_figure(entry)} | {holds} | {entry.form} | {_made(entry)} |"
    yield from ("", "<details><summary>what is measured beside it</summary>", "")
    yield "| what is measured | figure | form | device | commit |"
    yield "|---|---|---|---|---|"
    for entry in (entry for entry in entries if not entry.goal):
        yield f"| {entry.name} | {_figure(entry)} | {entry.form} | {_made(entry)} |"
    yield from ("", "</details>")


def _made(entry: Entry) -> str:
    return f"{entry.device} | {entry.commit}"


def _figure(entry: Entry) -> str:
    value = f"{entry.value:,.0f}" if entry.value >= 1000 else f"{entry.value:g}"
    return f"{value} {entry.unit}".strip()


def written(readme: str, entries: Iterable[Entry]) -> str:
    """A README with the table in its place."""
    before, _, rest = readme.partition(BEGIN)
    return "\n".join([before + BEGIN, *table(entries), END]) + rest.partition(END)[2]


def main() -> None:
    """Print the table, and put it into the README."""
    entries = read()
    print("\n".join(table(entries)))
    README.write_text(written(README.read_text(encoding="utf-8"), entries), encoding="utf-8")


if __name__ == "__main__":
    main()
