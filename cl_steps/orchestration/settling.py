"""How a step ended, as Airflow is told it: skipped, failed at once, or to be tried again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from cl_steps.errors import IntegrityError, RetainError
from cl_steps.orchestration.endings import todo_of


class IntegrityFault(AirflowFailException):  # type: ignore[misc]
    """A digest or a signature is not what it should be: nothing is tried again."""


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
