"""Whatever a library raises becomes one sentence of ours, and its traceback a file that the sentence names.

The file lies in the workspace's `.retain/`, or else in TMPDIR, for its owner alone; the oldest of many go. Of the
environment's secrets, and of passwords in URLs, it holds nothing. In a container the disk goes with the process, so
that the traceback is printed there, before the sentence.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from cl_steps.errors import RetainError, Unavailable

KEPT_FILES, MOST_CHARACTERS = 20, 200_000
NAME = "retain-error-{moment:%Y%m%dT%H%M%S%f}-{pid}.txt"
OURS = re.compile(r"retain-error-\d{8}T\d{12}-\d+\.txt")
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH|COOKIE", re.IGNORECASE)
LOGIN = re.compile(r"(?<=://)[^/@\s'\"]+(?=@)")
FULL = (errno.ENOSPC, errno.EDQUOT)
SQLITE_FULL, SQLITE_IOERR, SQLITE_CANTOPEN = 13, 10, 14
ROOM = 2**20
"""Bytes; a disk with less is full."""
MEMORY = "memory ran out: give it more, or less to do at once"
WORDS = {
    errno.ENOMEM: MEMORY,
    errno.EMFILE: "too many files are open at once: raise this process's limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine: close some",
    errno.EAGAIN: "no more processes may be started now: try again, or raise the limit (ulimit -u)",
    errno.EROFS: "a file system is mounted for reading only: mount it so that it can be written",
    errno.EIO: "a disk does not answer as it should: look at it",
}
"""What is said of resources that are not there now."""


def told(error: Exception, command: str = "", *folders: Path) -> RetainError:
    """The error as one of ours: itself, `Unavailable` for a resource, else RetainError, a bug of ours or a library's.

    Args:
        command: what was asked for, such as `night`.
        folders: where work was done; the first that is a workspace keeps the traceback.
    """
    if isinstance(error, RetainError):
        return error
    kind, words = _classified(error, folders)
    return kind(f"{redacted(words)} ({_kept(error, command, folders)})")


def redacted(text: str) -> str:
    """Without logins in URLs and without what the environment holds under a name that sounds like a secret."""
    text = LOGIN.sub("***", text)
    for name, value in os.environ.items():
        # A path to a secret is none.
        if SECRET.search(name) and len(value) >= 6 and not (value.startswith("/") and Path(value).exists()):
            text = text.replace(value, "***")
    return text


def _classified(error: Exception, folders: Iterable[Path]) -> tuple[type[RetainError], str]:
    for cause in _causes(error):
        if words := _resource(cause, folders):
            return Unavailable, words
    if isinstance(error, ConnectionError | TimeoutError) or type(error).__name__ == "gaierror":
        return Unavailable, f"a connection failed, {_said(error)}: try again"
    if isinstance(error, OSError) and error.filename:
        return RetainError, f"it cannot go on, {error.strerror}: {error.filename!r}"
    return RetainError, f"an error that it does not know, {type(error).__name__}: {_said(error)}; please report it"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from or while."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen and len(seen) < 10:
        seen.append(cause)
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _resource(error: BaseException, folders: Iterable[Path]) -> str | None:
    """What ran out or is away, and what to do; None where it is something else."""
    number = error.errno if isinstance(error, OSError) else None
    database = getattr(error, "sqlite_errorcode", 0) & 0xFF
    files = [Path(os.fsdecode(name)) for name in _names(error)]
    places = [*files, Path(tempfile.gettempdir()), *folders, Path.cwd()]
    if number in FULL or database == SQLITE_FULL:
        return f"no room is left on a disk ({_room(files or places)}): free some, then try again"
    if database in (SQLITE_IOERR, SQLITE_CANTOPEN) and any(free < ROOM for _, free in _free(places)):
        return f"no room is left on a disk ({_room(places)}): free some, then try again"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return MEMORY
    return WORDS.get(number) if number else None


def _names(error: BaseException) -> list[str | bytes]:
    if not isinstance(error, OSError):
        return []
    # Of a copy it is the second that is written.
    return [name for name in (error.filename2, error.filename) if isinstance(name, str | bytes)][:1]


def _free(places: Iterable[Path]) -> list[tuple[Path, int]]:
    """Each place, or the nearest folder above it that is there, and the bytes that are free on its disk."""
    found: dict[int, tuple[Path, int]] = {}
    for place in places:
        with suppress(OSError, ValueError):
            folder = next(path for path in (place, *place.absolute().parents) if path.is_dir())
            full = os.statvfs(folder).f_favail == 0 and os.statvfs(folder).f_files > 0
            found.setdefault(folder.stat().st_dev, (folder, 0 if full else shutil.disk_usage(folder).free))
    return sorted(found.values(), key=lambda item: item[1])


def _room(places: Iterable[Path]) -> str:
    found = [f"{free / ROOM:.1f} MiB free in {folder}" for folder, free in _free(places)[:3]]
    return ", ".join(found) or "nobody knows which"


def _said(error: BaseException) -> str:
    try:
        lines = str(error).strip().splitlines()
    except Exception:
        lines = []
    return (lines[0] if lines else "it says nothing")[:200]


def _kept(error: Exception, command: str, folders: Iterable[Path]) -> str:
    """Keep the traceback; where it is, in words."""
    try:
        lines = "".join(traceback.TracebackException.from_exception(error).format())
    except Exception:
        return "its traceback cannot be told"
    if len(lines) > MOST_CHARACTERS:
        lines = f"{lines[: MOST_CHARACTERS // 2]}\n[...]\n{lines[-MOST_CHARACTERS // 2 :]}"
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    text = redacted(f"retain {command}, {moment}, Python {platform.python_version()}\n\n{lines}")
    if os.environ.get("RETAIN_IMAGE"):
        print(text, file=sys.stderr, flush=True)
        return "its traceback stands above"
    for folder in (*(folder / ".retain" for folder in folders), Path(tempfile.gettempdir())):
        with suppress(OSError, ValueError):
            return f"its traceback: {_write(folder, text)}"
    return "there is no room for its traceback"


def _write(folder: Path, text: str) -> Path:
    """Write a file for its owner alone into a folder that is there, and let the oldest of ours go."""
    path = folder.resolve(strict=True) / NAME.format(moment=datetime.now(UTC), pid=os.getpid())
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
    except OSError:
        path.unlink()
        raise
    mine = [other for other in folder.iterdir() if OURS.fullmatch(other.name) and other.lstat().st_uid == os.getuid()]
    for other in sorted(mine)[:-KEPT_FILES]:
        with suppress(OSError):
            other.unlink()
    return path
