"""What it means to Airflow how a step ended: its exit code says what to do.

    0          done
    4          stale: another run promoted first. The task is skipped, and close records the run as stale
    2, 3, 5    parameters, data or a digest are wrong: failed at once, a retry would find the same
    6, others  a remote is away, a crash, a kill: tried again

What else can end a pod, and the answer to it, is in `pods/failures.py`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from cl_steps.errors import IntegrityError, NoUsableData, RetainError, StaleRun, UsageError

Todo = Literal["done", "again", "resume", "smaller", "fail", "skip"]
FINAL_CODES = tuple(error.exit_code for error in (UsageError, NoUsableData, IntegrityError))


class IntegrityFault(AirflowFailException):  # type: ignore[misc]
    """A digest or a signature is not what it should be: nothing is tried again."""


def todo_of(code: int) -> Todo:
    """What the exit code of a step asks for."""
    if code == 0:
        return "done"
    if code == StaleRun.exit_code:
        return "skip"
    return "fail" if code in FINAL_CODES else "again"


def settle(code: int, reason: str) -> None:
    """Raise for Airflow what the exit code of a step means; nothing for 0."""
    todo = todo_of(code)
    if todo == "skip":
        raise AirflowSkipException(f"stale, and closed as such: {reason}")
    if todo == "fail":
        raise IntegrityFault(reason) if code == IntegrityError.exit_code else AirflowFailException(reason)
    if todo == "again":
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise AirflowException(f"{cause}: {reason}")


@contextmanager
def settled() -> Iterator[None]:
    """The same for what a light task raises in Airflow's own process."""
    try:
        yield
    except RetainError as error:
        settle(error.exit_code, str(error))
