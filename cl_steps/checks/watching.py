"""Watching over the room of checks while it is at work: time, memory and processes of all together, bytes on disk.

Limits of one process (`launch.limit`) do not add up: a hundred children may take a hundred times as much. So all that
belongs to the room's process group, which nobody in it can leave, is counted a few times a second, and ended as one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MAX_PROCESSES = 64
MAX_BYTES = 256 * 2**20
MAX_FILES = 20_000
LOOK_SECONDS = 0.1
PROCESSES = Path("/proc")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class End:
    """How the room ended: its exit code, or why it was ended."""

    code: int
    problem: str = ""


def watch(process: subprocess.Popen[bytes], folders: Iterable[Path], seconds: float, memory_bytes: int) -> End:
    """Wait for the end of a process that leads a group, and end all of the group then, or where it takes too much.

    Args:
        process: the leader.
        folders: where the group may write.
        seconds: how long it may take.
        memory_bytes: how much memory all of it together may hold.
    """
    places, end, problem = tuple(folders), time.monotonic() + seconds, ""
    try:
        while not problem:
            with suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_SECONDS)
                break
            problem = _too_much(process.pid, places, memory_bytes)
            if not problem and time.monotonic() > end:
                problem = f"they took longer than {seconds:g} s"
    finally:
        _end(process)
    # What came between the last look and the end.
    return End(process.returncode, problem or _too_much_written(places))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the group, again until nothing of it is left: a process may be forking."""
    for _ in range(50):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.poll() is not None and not any(True for _ in _members(process.pid)):
            break
        time.sleep(0.02)
    process.wait()


def _too_much(group: int, folders: tuple[Path, ...], memory_bytes: int) -> str:
    members = list(_members(group))
    if len(members) > MAX_PROCESSES:
        return f"they started more than {MAX_PROCESSES} processes"
    if sum(members) > memory_bytes:
        return f"all of them together took more than {memory_bytes} bytes of memory (gate.checks_bytes)"
    return _too_much_written(folders)


def _members(group: int) -> Iterator[int]:
    """The bytes of memory of each process of a group that has not ended; what several share, each holds a part of."""
    for place in PROCESSES.iterdir() if PROCESSES.is_dir() else ():
        if place.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                facts = (place / "stat").read_text(encoding="utf-8", errors="replace")
                state, _, leader = facts.rpartition(")")[2].split()[:3]
                if int(leader) == group and state not in "ZX":
                    yield _bytes_of(place)


def _bytes_of(process: Path) -> int:
    """Its share of what it holds (PSS), or where that is not told, all of it."""
    with suppress(OSError, StopIteration, ValueError):
        lines = (process / "smaps_rollup").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024
    return int((process / "statm").read_text(encoding="utf-8").split()[1]) * PAGE_BYTES


def _too_much_written(folders: tuple[Path, ...]) -> str:
    """Looks into no more files than are allowed, so that a look is never long."""
    num_files = num_bytes = 0
    for size in _sizes(folders):
        num_files, num_bytes = num_files + 1, num_bytes + size
        if num_files > MAX_FILES:
            return f"they wrote more than {MAX_FILES} files"
        if num_bytes > MAX_BYTES:
            return f"they wrote more than {MAX_BYTES // 2**20} MiB"
    return ""


def _sizes(folders: tuple[Path, ...]) -> Iterator[int]:
    waiting = list(map(str, folders))
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    yield entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
