"""The asset index: which dataset holds which asset. Derived from main and the store, and never the truth.

One SQLite file: in `.retain/` where the line keeps everything there, else in the user's cache folder under the digest
of the Git URL. It is as old as main's tip at its last look; opening it brings it up to date by the records and events
that are new on main (`indexing.py`), in one transaction. It is made anew, beside its place and then moved there, where
it is absent, cut, of another format, or of another history than main's.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from cl_steps.errors import Unavailable
from cl_steps.progress import say
from cl_steps.repository.git import remote_refs
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from cl_steps.trace.indexing import SCHEMA, AnotherHistoryError, fill

Answer = TypeVar("Answer")
FILE = "index.sqlite"
MAIN = "refs/heads/main"
PATIENCE_SECONDS = 60.0
"""How long one process waits for another one's transaction."""


def ask(line: Line, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
    """What `question` finds in the index, which is as new as main is now.

    Raises:
        Unavailable: a remote cannot be reached, or the index cannot be written.
        IntegrityError: an event, a record or a manifest is not what it must be.
    """
    path = place(line)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _asked(line, path, question)
    except (OSError, sqlite3.OperationalError) as error:
        raise Unavailable(
            f"the asset index {path} cannot be used ({error}): is there room, and may you write?"
        ) from error


def place(line: Line) -> Path:
    """Where the index of a line lies."""
    remote = Path(line.git)
    if "://" not in line.git and remote.name == "git" and remote.parent.name == ".retain":
        return remote.resolve().parent / FILE
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache).resolve() / "retain" / hashlib.sha256(line.git.encode()).hexdigest()[:32] / FILE


def _asked(line: Line, path: Path, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
    try:
        with closing(_current(line, path)) as connection:
            return question(connection)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        say(f"the asset index {path} is damaged ({error}) and is made anew")
        path.unlink(missing_ok=True)
    with closing(_current(line, path)) as connection:
        return question(connection)


def _current(line: Line, path: Path) -> sqlite3.Connection:
    """The index at `path`, brought up to date, or made anew where that cannot be."""
    if path.is_file():
        connection = sqlite3.connect(path, timeout=PATIENCE_SECONDS, isolation_level=None)
        try:
            _refuse_cut(connection, path)
            if _tip(connection) != remote_refs(line.git, MAIN).get(MAIN):
                _update(connection, line)
        except AnotherHistoryError as error:
            connection.close()
            say(f"the asset index is made anew: {error}")
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    _make(line, path)
    return sqlite3.connect(path, timeout=PATIENCE_SECONDS, isolation_level=None)


def _refuse_cut(connection: sqlite3.Connection, path: Path) -> None:
    """SQLite takes what is missing of the last page for zeros."""
    [pages], [size] = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    if path.stat().st_size < pages * size:
        raise sqlite3.DatabaseError("the file is cut")


def _tip(connection: sqlite3.Connection) -> str | None:
    if connection.execute("PRAGMA user_version").fetchone()[0] != SCHEMA:
        raise AnotherHistoryError("it is of another format")
    row = connection.execute("SELECT value FROM facts WHERE name = 'tip'").fetchone()
    return str(row[0]) if row else None


def _update(connection: sqlite3.Connection, line: Line) -> None:
    """All of what is new on main, or nothing."""
    with reading(line.git) as main:
        connection.execute("BEGIN IMMEDIATE")
        try:
            fill(connection, line, main)
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def _make(line: Line, path: Path) -> None:
    """A new index, moved to `path` once it is whole; only its owner may read it: it holds captions and thumbnails."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with reading(line.git) as main, closing(sqlite3.connect(draft, isolation_level=None)) as connection:
            # Nobody reads a draft: a crash leaves it behind, and nothing of it is used.
            connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -200000")
            connection.execute("BEGIN")
            fill(connection, line, main)
            connection.execute("COMMIT")
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
