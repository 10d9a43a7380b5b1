"""Step: decide from the paired figures: promote, reject or inconclusive.

The verdict is `decide`'s, a pure function of figures and parameters that promotion works out again. The shipped checks
show it as a pytest suite, one test a check; the user's own `checks/test_*.py` run in a room of their own (in a pod, in
a container of its own: `checks/apart.py`) and can only add failures. No torch is imported.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from cl_steps.checks.junit import Case, write_junit
from cl_steps.checks.own import complaints, room_of_own, run_own
from cl_steps.checks.sandbox import PACKAGE, Suite, run_suite
from cl_steps.config import Params
from cl_steps.errors import RetainError
from cl_steps.run.context import Context, StepReport
from cl_steps.stats import decision as rule
from cl_steps.stats.decision import Decision
from cl_steps.stats.figures import read_figures

SHIPPED = PACKAGE / "checks"
FIGURES = "tonight/evaluation/figures"
SHIPPED_SECONDS = 600


def decide(figures: Path, params: Params) -> Decision:
    """The shipped verdict on a folder of figures.

    Raises:
        IntegrityError: the figures cannot be read.
    """
    return rule.decide(read_figures(figures), params)


def run(context: Context) -> StepReport:
    """Decide, run both suites, and write `reports/junit.xml`."""
    figures = context.path(FIGURES)
    decision = decide(figures, context.params)
    shipped = run_suite(SHIPPED, figures, context.params, SHIPPED_SECONDS, ours=True)
    _check_shipped(shipped, decision)
    own = run_own(context.path("checks"), figures, context.params)
    write_junit(context.root / "reports" / "junit.xml", {"retain": shipped.cases, "own": _cases(own)})
    return StepReport(*_verdict(decision, own), _figures(decision, own) | {"approval": context.params.gate.approval})


def _check_shipped(suite: Suite, decision: Decision) -> None:
    """The suite must say what the decision says; a difference is a bug of ours, and no verdict."""
    passed = bool(suite.cases) and all(case.outcome == "passed" for case in suite.cases)
    if suite.problem or passed != (decision.verdict == "promote"):
        reason = suite.problem or f"they do not say {decision.verdict}"
        raise RetainError(f"the shipped checks cannot be relied on ({reason}): nothing was decided, run the gate again")


def _verdict(decision: Decision, own: Suite) -> tuple[str, str]:
    """The user's checks can turn any verdict into a rejection, and none into anything else."""
    against = complaints(own)
    if not against:
        return decision.verdict, decision.why
    before = [decision.why.removeprefix("rejected: ")] if decision.verdict == "reject" else []
    return "reject", f"rejected: {'; '.join(before + against)}"


def _cases(suite: Suite) -> tuple[Case, ...]:
    """A problem with the whole suite counts as one more case."""
    return (*suite.cases, *([Case("checks", "suite", "error", suite.problem)] if suite.problem else []))


def _figures(decision: Decision, own: Suite) -> dict[str, Any]:
    cases = _cases(own)
    failed = sum(case.failed for case in cases)
    skipped = sum(case.outcome == "skipped" for case in cases)
    counts = {"passed": len(cases) - failed - skipped, "failed": failed, "skipped": skipped}
    return {
        "checks": [asdict(check) for check in decision.checks],
        "level": decision.level,
        "user_checks": counts,
        "isolation": room_of_own(),
    }
