"""The owner's own checks, `checks/test_*.py`: they run in a room of their own and can only add failures.

In a pod the room is a container of its own.
"""

from __future__ import annotations

from pathlib import Path

from cl_steps.checks import apart
from cl_steps.checks.junit import Case
from cl_steps.checks.sandbox import Suite, isolation, run_suite
from cl_steps.config import Params

LONGEST_MESSAGE = 200


def run_own(tests: Path, figures: Path, params: Params) -> Suite:
    """The owner's suite on a folder of figures; without files there is none, and nothing can fail.

    Raises:
        UsageError: a file among the tests is a symbolic link, or this machine cannot confine them.
        Unavailable: they have a container of their own, which does not answer.
    """
    if not any(tests.rglob("test_*.py")):
        return Suite(())
    seconds = params.gate.checks_seconds
    if shared := apart.place():
        return apart.run_apart(shared, tests, figures, params, seconds)
    return run_suite(tests, figures, params, seconds)


def room_of_own() -> dict[str, bool]:
    """What is closed for the owner's checks here, and whether they have a `container` of their own."""
    return isolation() | {"container": apart.place() is not None}


def complaints(own: Suite) -> list[str]:
    """What the owner's checks have against a candidate, a sentence each."""
    found = [f"your check {_title(case)} failed: {_first_line(case)}" for case in own.cases if case.failed]
    return [*found, *([f"your checks could not be completed: {own.problem}"] if own.problem else [])]


def _title(case: Case) -> str:
    return f"{case.place}::{case.name}"[:LONGEST_MESSAGE]


def _first_line(case: Case) -> str:
    return (case.message.strip().splitlines() or ["no message"])[0][:LONGEST_MESSAGE]
