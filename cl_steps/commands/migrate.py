"""`retain migrate`: a workspace of an older format becomes one of today's, by a commit on main for each format.

What is append-only (records, events) is never rewritten: code reads every schema that was ever written. A migration
changes what a line's next run works with, such as `params.yaml`, `dvc.yaml` or the layout of folders.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cl_steps.commands.night import person
from cl_steps.config import FORMAT, check_format
from cl_steps.errors import UsageError
from cl_steps.lineage.records import now
from cl_steps.lineage.signing import event_files
from cl_steps.workspace.checkout import refuse_dirty, sync
from cl_steps.workspace.ledger import EVENT_SCHEMA, event_path
from cl_steps.workspace.line import Line, resolve
from cl_steps.workspace.mainline import Change, Mainline, reading

PARAMS = "params.yaml"
NUMBER = re.compile(rb"^format:[ \t]*[0-9]+", re.MULTILINE)


@dataclass(frozen=True)
class Migration:
    """From one format to the next: what it does, and the files of main that it changes (None removes one)."""

    summary: str
    files: Callable[[Mainline], Mapping[str, bytes | None]]


MIGRATIONS: tuple[Migration, ...] = ()
"""The first leads from format 1 to 2, the next from 2 to 3, and so on up to `config.FORMAT`."""


def migrate(dir: str) -> str:
    """Bring the workspace's main, and the checkout in `dir`, up to today's format; again: nothing.

    Raises:
        UsageError: the workspace is of a newer format than this code's, or its checkout holds changes of its own.
        Unavailable: the Git remote cannot be reached or does not take the change.
    """
    assert len(MIGRATIONS) == FORMAT - 1, "a format has its migration"
    line = resolve(dir)
    refuse_dirty(Path(dir), line)
    with reading(line.git) as main:
        before = _format(main)
        for target in range(before + 1, FORMAT + 1):
            main.swap(partial(_change, line, main, target))
    sync(Path(dir), line)
    if before == FORMAT:
        return f"{dir} is of format {FORMAT}, today's: there is nothing to migrate"
    done = "; ".join(migration.summary for migration in MIGRATIONS[before - 1 :])
    return f"{dir} is of format {FORMAT} now, and was of {before}: {done}. Runs under way must begin anew"


def _change(line: Line, main: Mainline, target: int) -> Change | None:
    """The commit that leads to format `target`; None where somebody else made it meanwhile."""
    before = _format(main)
    if before >= target:
        return None
    moment = main.moment()
    path = event_path("migration", f"format-{target}", moment)
    event: dict[str, Any] = {"schema": EVENT_SCHEMA, "kind": "migration", "id": Path(path).stem, "at": now(moment)}
    event |= {"by": person(), "through": "command line", "from": before, "to": target}
    files = {PARAMS: main.read(PARAMS) or b"", **MIGRATIONS[target - 2].files(main)}
    files[PARAMS] = _numbered(files[PARAMS] or b"", target)
    return Change({**files, **event_files(line, path, event)}, f"migrate to format {target}\n")


def _format(main: Mainline) -> int:
    """The format of main; raises UsageError for one that is newer, or none."""
    values = main.params_file()
    found = values.get("format", 1)
    if not isinstance(found, int) or found < 1:
        raise UsageError(f"main's {PARAMS} has the format {found!r:.20}, which is no format: put its number back")
    if found > FORMAT:
        check_format(values)
    return found


def _numbered(params: bytes, number: int) -> bytes:
    """The file with another format, its comments kept."""
    words = f"format: {number}".encode()
    changed, found = NUMBER.subn(words, params, count=1)
    return changed if found else words + b"\n" + params
