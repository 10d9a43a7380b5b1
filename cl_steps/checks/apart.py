"""The owner's checks in a container of their own, beside the gate's in its pod: no Secret, no credential, no token.

    python -m cl_steps.checks.apart FOLDER        what that container runs; it imports no library that is heavy

Both containers share one folder and nothing else. The gate puts a furnished room into it and waits; the other container
takes it, runs the checks as `sandbox.py` does anywhere, and leaves how they ended:

    room/        by the gate, put there whole by one renaming
    work/        the same, taken: never given back, so that a container that was started anew knows what it lost
    junit.xml    what the checks say of themselves
    end.json     how the room ended, put there last

Whatever is in that folder then, a check may have written. The gate reads those two files and nothing else, as plain
files of bounded size just below the place where the folder is mounted, which no link can stand for.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cl_steps.checks.junit import MAX_BYTES, clean, plain_bytes, read_cases
from cl_steps.checks.sandbox import REPORT, Suite, can_be_confined, furnish, judged, work
from cl_steps.checks.watching import End
from cl_steps.config import Params
from cl_steps.documents import read_json
from cl_steps.errors import Unavailable

FOLDER = "RETAIN_CHECKS_ROOM"
"""Of the pod: the folder that its two containers share."""
TASK, ROOM, WORK, SAID, END = "task.json", "room", "work", "junit.xml", "end.json"
TAKEN_SECONDS = 120.0
MARGIN_SECONDS = 60.0
"""Beyond what the checks themselves may take: to begin, to end them, to look."""
LOOK_SECONDS = 0.2
END_BYTES = 4096
SHARE = 7 / 8
"""How much of its container's memory the checks may take: beyond it they are ended, and not the container."""
MEMORY = Path("/sys/fs/cgroup/memory.max")


def place() -> Path | None:
    """The folder that this pod's containers share; None where checks have no container of their own."""
    named = os.environ.get(FOLDER)
    return Path(named) if named else None


def run_apart(shared: Path, tests: Path, figures: Path, params: Params, seconds: int) -> Suite:
    """As `run_suite`, in the other container.

    Raises:
        UsageError: a file among the tests is a symbolic link, or this machine cannot confine them.
        Unavailable: the other container is not there, does not answer, or was ended.
    """
    confined = can_be_confined()
    _hand_over(shared, tests, figures, params, {"seconds": seconds, "confined": confined})
    _wait(shared / WORK, TAKEN_SECONDS, "did not take up your checks")
    _wait(shared / END, seconds + MARGIN_SECONDS, "did not answer")
    return judged(_end(shared / END), read_cases(shared / SAID, str(shared / WORK)))


def _hand_over(shared: Path, tests: Path, figures: Path, params: Params, task: dict[str, Any]) -> None:
    """Furnish a room under a name that nobody looks for, then give it its own."""
    draft = shared / ".furnished"
    try:
        if found := sorted(entry.name for entry in os.scandir(shared)):
            raise Unavailable(f"the folder of the checks' container is not empty ({clean(found[0])}): try again")
        draft.mkdir()
        furnish(draft, tests, figures, params)
        (draft / TASK).write_text(json.dumps({**task, "bytes": params.gate.checks_bytes}), encoding="utf-8")
        draft.rename(shared / ROOM)
    except OSError as error:
        raise Unavailable(f"the folder of the checks' container cannot be used ({error}): try again") from error


def _wait(path: Path, seconds: float, otherwise: str) -> None:
    end = time.monotonic() + seconds
    while not os.path.lexists(path):
        if time.monotonic() > end:
            raise Unavailable(f"the checks' container {otherwise} within {seconds:g} s: try again")
        time.sleep(LOOK_SECONDS)


def _end(path: Path) -> End:
    """How the room ended, as a check may have written it; what cannot be read is a problem with the checks."""
    try:
        found = read_json(plain_bytes(path, END_BYTES))
        code, problem, lost = int(found["code"]), clean(str(found["problem"])), found["lost"]
    except (OSError, ValueError, TypeError, KeyError):
        return End(-1, "they left no end that can be read")
    if lost is True:
        raise Unavailable("the checks' container was ended while your checks ran: try again, or give it more memory")
    return End(code, problem)


def serve(shared: Path) -> None:
    """Wait for a room, run its checks, and leave how they ended: one room in the life of a pod."""
    if os.path.lexists(shared / WORK):
        if not os.path.lexists(shared / END):
            _say(shared, End(-1), lost=True)
        return
    while not _taken(shared):
        time.sleep(LOOK_SECONDS)
    task = json.loads((shared / WORK / TASK).read_text(encoding="utf-8"))
    end = work(shared / WORK, task["seconds"], _within(task["bytes"]), task["confined"])
    with suppress(OSError, ValueError):
        (shared / SAID).write_bytes(plain_bytes(shared / WORK / REPORT, MAX_BYTES))
    _say(shared, end)


def _taken(shared: Path) -> bool:
    with suppress(FileNotFoundError):
        (shared / ROOM).rename(shared / WORK)
        return True
    return False


def _within(memory_bytes: int) -> int:
    """No more than the container itself has, where that is told."""
    with suppress(OSError, ValueError):
        return min(memory_bytes, int(int(MEMORY.read_text(encoding="utf-8")) * SHARE))
    return memory_bytes


def _say(shared: Path, end: End, *, lost: bool = False) -> None:
    draft = shared / f".{END}"
    draft.write_text(json.dumps({"code": end.code, "problem": end.problem, "lost": lost}), encoding="utf-8")
    draft.replace(shared / END)


def main(argv: Sequence[str] | None = None) -> None:
    """Serve, then stay until the pod ends: a container that ended would be started anew."""
    [shared] = sys.argv[1:] if argv is None else argv
    serve(Path(shared))
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
