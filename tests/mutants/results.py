"""What was measured, a row a fault in `results.jsonl`; and the survivors that a person accepted, each with why."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.mutants.faults import Mutant

HERE = Path(__file__).parent
Row = Mapping[str, Any]
IDENTITY = ("scope", "at", "change", "unit")


def identity(row: Row) -> tuple[str, ...]:
    """A fault by its content: neither the line nor the module's name counts."""
    return tuple(row[name] for name in IDENTITY)


def row_of(mutant: Mutant, **measured: object) -> Row:
    """A fault and what became of it."""
    return {name: getattr(mutant, name) for name in ("path", "line", *IDENTITY)} | measured


@dataclass
class Results:
    """The rows of a file, which is written after each."""

    file: Path
    rows: dict[tuple[str, ...], Row]

    @classmethod
    def read(cls, file: Path) -> Results:
        """What was measured so far; nothing where there is no file."""
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        rows = [json.loads(line) for line in lines]
        return cls(file, {identity(row): row for row in rows})

    def add(self, row: Row) -> None:
        """One more, or the same measured again."""
        self.rows[identity(row)] = row
        self.write()

    def keep(self, path: str, mutants: Iterable[Mutant]) -> None:
        """Rows of faults that a module no longer has are gone; those that it still has follow it to its new lines."""
        now = {identity(row): row for row in map(row_of, mutants)}
        gone = [key for key, row in self.rows.items() if row["path"] == path and key not in now]
        for key in gone:
            del self.rows[key]
        for key in self.rows.keys() & now.keys():
            self.rows[key] = {**self.rows[key], **now[key]}

    def write(self) -> None:
        """Sorted, so that two runs differ by what they measured."""
        rows = sorted(self.rows.values(), key=lambda row: (row["path"], row["line"], row["change"], row["unit"]))
        new = self.file.with_suffix(".new")
        new.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        new.replace(self.file)


def read_accepted(file: Path) -> dict[tuple[str, ...], tuple[str, str]]:
    """(scope, at, change) of each accepted survivor: `equivalent` or `not worth it`, and why."""
    groups = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else []
    return {
        (entry["scope"], entry["at"], change): (entry["kind"], entry["why"])
        for entry in groups or []
        for change in entry["changes"]
    }


def table(rows: Iterable[Row], accepted: Mapping[tuple[str, ...], tuple[str, str]]) -> str:
    """By folder, in Markdown; the share is of those that are not equivalent."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0])
    for row in rows:
        folder = counts[str(Path(row["path"]).parent)]
        kind = accepted.get(identity(row)[:3], ("", ""))[0]
        folder[0] += 1
        folder[1] += row["outcome"] == "killed"
        for place, name in ((2, "equivalent"), (3, "not worth it"), (4, "")):
            folder[place] += row["outcome"] == "survived" and kind == name
    lines = ["| folder | faults | killed | equivalent | not worth it | open | killed of those not equivalent |"]
    lines += ["|---|---|---|---|---|---|---|"]
    total = [sum(column) for column in zip(*counts.values(), strict=True)] if counts else [0] * 5
    for name, numbers in [*sorted(counts.items()), ("all", total)]:
        share = 100 * numbers[1] / max(1, numbers[0] - numbers[2])
        lines.append(f"| {name} | {' | '.join(map(str, numbers))} | {share:.1f} % |")
    return "\n".join(lines)


def survivors(rows: Iterable[Row], accepted: Mapping[tuple[str, ...], tuple[str, str]]) -> str:
    """Each survivor with its reason, or with none yet."""
    lines = []
    for row in rows:
        if row["outcome"] == "survived":
            kind, why = accepted.get(identity(row)[:3], ("open", f"{row['tests']} tests saw nothing"))
            lines += [f"{row['path']}:{row['line']} {row['scope']}\n    {row['change']}\n    {kind}: {why}"]
    return "\n".join(lines)
