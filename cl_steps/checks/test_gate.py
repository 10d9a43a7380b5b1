"""The shipped checks: one test a question that the gate asks of the candidate. The gate runs them, not `tests/`."""

from __future__ import annotations

from cl_steps.checks.plugin import Evaluation
from cl_steps.stats.decision import Check, describe


def test_check(check: Check) -> None:
    """The bound lies inside the margin."""
    assert check.verdict == "pass", f"{check.verdict}: {describe(check)}; bounds {check.lower} to {check.upper}"


def test_every_known_slice_was_compared(evaluation: Evaluation) -> None:
    """No slice that the model ever learnt is left unasked."""
    compared = {check.slice for check in evaluation.checks if check.kind == "non-inferiority"}
    assert compared == set(evaluation.slices), f"not compared: {sorted(set(evaluation.slices) - compared)}"


def test_every_new_slice_was_asked_for_a_gain(evaluation: Evaluation) -> None:
    """A candidate that learnt nothing is no reason for a promotion."""
    asked = {check.slice for check in evaluation.checks if check.kind == "superiority"}
    assert asked == set(evaluation.new_slices), f"not asked: {sorted(set(evaluation.new_slices) - asked)}"


def test_something_was_checked(evaluation: Evaluation) -> None:
    """A decision without checks would pass them all."""
    assert evaluation.checks, "there was nothing to check"
