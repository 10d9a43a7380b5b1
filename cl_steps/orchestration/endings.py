"""What the exit code of a step asks for. Pure.

    0          done
    4          stale: another run promoted first. The task is skipped, and close records the run as stale
    2, 3, 5    parameters, data or a digest are wrong: failed at once, a retry would find the same
    6, others  a remote is away, a crash, a kill: tried again

What else can end a pod, and the answer to it, is in `pods/failures.py`.
"""

from __future__ import annotations

from typing import Literal

from cl_steps.errors import IntegrityError, NoUsableData, StaleRun, UsageError

Todo = Literal["done", "again", "resume", "smaller", "fail", "skip"]
FINAL_CODES = tuple(error.exit_code for error in (UsageError, NoUsableData, IntegrityError))


def todo_of(code: int) -> Todo:
    """What the exit code of a step asks for."""
    if code == 0:
        return "done"
    if code == StaleRun.exit_code:
        return "skip"
    return "fail" if code in FINAL_CODES else "again"
