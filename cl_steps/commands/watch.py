"""`retain watch`: do the lines of a `lines.yaml` still have their nights? Asks Git (and the store), never Airflow.

The alert that matters: whatever ends the nights of a line (Airflow, its database, a credential, the cluster), its Git
remote then shows no finished run, and this command ends with an error.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cl_steps.documents import Json, Unreadable, read_yaml
from cl_steps.errors import IntegrityError, RetainError, Unavailable, UsageError
from cl_steps.repository.heads import read_heads, refuse_older, write_heads
from cl_steps.repository.mainline import Mainline, reading
from cl_steps.store.objects import open_store
from cl_steps.store.pointers import read_dvc_file

Row = dict[str, Any]


def watch(
    lines: str, hours: float | None, line: str | None, store: bool, heads: str | None, json: bool
) -> dict[str, Any] | str:
    """Look at every line (or at `line`): when its last run finished and, with `store`, what the store holds of it.

    A line is overdue after its own `overdue_hours`, else after `hours` (None: nothing is overdue). A line without a
    schedule, or with `overdue_hours: null`, is never overdue. A run that failed is no finished run. The file `heads`
    remembers where each main was, so that an older one that somebody pushed is seen.

    Raises:
        UsageError: no such file or line.
        Unavailable: a line is overdue, or its Git remote or store cannot be reached.
        IntegrityError: the store lacks objects of a champion, or main is not what it was and more.
    """
    rows, errors = [], []
    seen = read_heads(Path(heads)) if heads else {}
    for entry in _entries(Path(lines), line):
        try:
            rows.append(_look(entry, hours, store, seen))
        except RetainError as error:
            rows.append({"line": entry["name"], "problem": str(error)})
            errors.append(error)
    if heads:
        write_heads(Path(heads), seen)
    if errors:
        words = "; ".join(f"{row['line']}: {row['problem']}" for row in rows if "problem" in row)
        worst = next((error for error in errors if isinstance(error, IntegrityError)), errors[0])
        raise type(worst)(f"{len(errors)} of {len(rows)} lines need a person: {words}")
    return {"lines": rows} if json else "\n".join(_text(row) for row in rows) or "no line yet"


def _entries(file: Path, only: str | None) -> list[Json]:
    try:
        found = list(read_yaml(file.read_bytes())["lines"])
    except Unreadable as error:
        raise UsageError(f"{file} is not valid YAML ({error}): mend it and try again") from error
    except (OSError, KeyError, TypeError) as error:
        raise UsageError(f"{file} is no lines.yaml: name the file that Airflow reads by RETAIN_LINES") from error
    entries = [_named(entry, number) for number, entry in enumerate(found, start=1)]
    chosen = [entry for entry in entries if only in (None, entry["name"])]
    if only and not chosen:
        raise UsageError(f"{file} has no line {only!r}: it has {', '.join(entry['name'] for entry in entries)}")
    return chosen


def _named(entry: Any, number: int) -> Json:
    """An entry with a name; one that is no line hides no other."""
    values = entry if isinstance(entry, dict) else {}
    return {**values, "name": str(values.get("name") or f"entry {number}")}


def _look(entry: Json, hours: float | None, store: bool, seen: dict[str, str]) -> Row:
    """What to say of a line; where its main is goes into `seen`, if that is not an older one."""
    if not isinstance(entry.get("workspace"), str):
        raise UsageError("it has no workspace: mend its entry of lines.yaml")
    with reading(entry["workspace"]) as main:
        try:
            refuse_older(main, seen.get(entry["name"]))
        except IntegrityError as error:
            raise IntegrityError(f"{error}; where it was meant, take the line out of the file of heads") from error
        seen[entry["name"]] = main.tip
        champion, last = main.champion().version, main.last_finished()
        since = (datetime.now(UTC) - last).total_seconds() / 3600
        row = {"line": entry["name"], "champion": champion, "hours": round(since, 1), "store": None}
        allowed = _allowed(entry, hours)
        if allowed is not None and since > allowed:
            raise Unavailable(
                f"no run finished for {since:.0f} hours (allowed: {allowed:g}): see whether its Airflow is at work"
            )
        return {**row, "store": _stored(main, entry)} if store else row


def _allowed(entry: Json, hours: float | None) -> float | None:
    if hours is None or entry.get("schedule", "@daily") is None:
        return None
    allowed = entry.get("overdue_hours", hours)
    if allowed is not None and not isinstance(allowed, int | float):
        raise UsageError("its overdue_hours is no number: mend its entry of lines.yaml")
    return float(allowed) if allowed is not None else None


def _stored(main: Mainline, entry: Json) -> int:
    """How many outputs of the champion the store holds whole: all of them."""
    outs = [read_dvc_file(content) for name, content in main.folder_files("state").items() if name.endswith(".dvc")]
    if not entry.get("store"):
        raise UsageError("it names no store: write its `store` into lines.yaml")
    with open_store(entry["store"]) as store:
        lacking = store.missing(outs)
    if lacking:
        raise IntegrityError(f"its store lacks objects of the champion, {', '.join(lacking)}: restore the bucket")
    return len(outs)


def _text(row: Row) -> str:
    held = f", store holds all {row['store']} parts of it" if row["store"] is not None else ""
    return f"{row['line']}: {row['champion']}, last run finished {row['hours']} h ago, Git answers{held}"
