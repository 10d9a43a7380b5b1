"""Deleting a folder that a check may have filled: whatever depth, whatever modes, and following nothing."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from itertools import count
from pathlib import Path


def clear(folder: Path) -> None:
    """Delete a folder and all below it; what cannot be deleted stays, and nothing is raised.

    Folders in folders are moved up beside it before they are emptied: no path grows long, and nothing recurs.
    """
    with suppress(OSError):
        top = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _clear(top, folder.name)
        finally:
            os.close(top)


def _clear(top: int, name: str) -> None:
    numbers, waiting = count(), [name]
    while waiting:
        current = waiting.pop()
        with suppress(OSError):
            os.chmod(current, stat.S_IRWXU, dir_fd=top)
        try:
            here = os.open(current, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
        except OSError:
            continue
        try:
            for entry in _entries(here):
                moved = f".{name}-{next(numbers)}"
                if _is_folder(here, entry) and _move(here, entry, top, moved):
                    waiting.append(moved)
        finally:
            os.close(here)
        with suppress(OSError):
            os.rmdir(current, dir_fd=top)


def _entries(folder: int) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _is_folder(here: int, entry: str) -> bool:
    """Whether it is one; whatever else it is, is deleted at once."""
    with suppress(OSError):
        if stat.S_ISDIR(os.stat(entry, dir_fd=here, follow_symlinks=False).st_mode):
            return True
        os.unlink(entry, dir_fd=here)
    return False


def _move(here: int, entry: str, top: int, moved: str) -> bool:
    """Whether a folder could be moved up; a folder that nobody may write cannot be moved before that is mended."""
    with suppress(OSError):
        os.chmod(entry, stat.S_IRWXU, dir_fd=here)
    try:
        os.rename(entry, moved, src_dir_fd=here, dst_dir_fd=top)
    except OSError:
        return False
    return True
