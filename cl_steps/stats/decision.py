"""The one rule that says promote, reject or inconclusive: asked after each look, by the gate, and by promotion.

Harm is what a metric lost: relative rise of the loss, fall of fidelity, rise of KID, relative fall of diversity.

    known slice   against the champion (nightly margin) and its anchor (total margin): every harm inside its margin
    new slice     against the champion: the gain (in fidelity, or in loss where there is no fidelity) above `min_gain`

Promote when every check passes: its one-sided bound at the level lies inside the margin (intersection-union, no
correction). Reject when some harm is shown to lie beyond its margin (Holm over all checks). Else inconclusive. The
level is split evenly over looks and attempts (Bonferroni), so that looking again costs what it should. A figure that
is missing or has too few units never passes; a candidate whose figures are not numbers fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from cl_steps.config import Margins, Params
from cl_steps.stats import kid
from cl_steps.stats.figures import Figures, Floats
from cl_steps.stats.paired import MIN_UNITS, UNKNOWN, Estimate, holm, mean_estimate, relative_increase

Verdict = Literal["promote", "reject", "inconclusive"]
CheckVerdict = Literal["pass", "fail", "inconclusive"]
Against = Literal["champion", "anchor"]

METRICS = ("loss", "fidelity", "kid", "diversity")
ITEM_METRICS = ("loss", "fidelity")
TELLING = ("fidelity", "loss", "kid", "diversity")
"""Metrics in the order in which a sentence prefers them."""
BROKEN = "the candidate's figures are not numbers"
MISSING = "the figures are missing"


@dataclass(frozen=True)
class Question:
    """One thing asked of the candidate: its harm in a slice, the margin, and whether it is a gain that is asked."""

    slice: str
    metric: str
    against: Against
    superiority: bool
    harm: Estimate
    margin: float
    note: str = ""


@dataclass(frozen=True)
class Check:
    """A question answered.

    Of non-inferiority, the estimate and its one-sided bounds are of the harm, and `margin` is the most allowed; of
    superiority they are of the gain, and `margin` is the least asked. None where nothing is known.
    """

    slice: str
    metric: str
    against: Against
    kind: Literal["non-inferiority", "superiority"]
    units: int
    estimate: float | None
    lower: float | None
    upper: float | None
    margin: float
    verdict: CheckVerdict
    note: str = ""


@dataclass(frozen=True)
class Decision:
    """The verdict, one sentence why, and the checks behind it; `level` is that of each one-sided bound."""

    verdict: Verdict
    why: str
    level: float
    checks: tuple[Check, ...]

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"checks": [asdict(check) for check in self.checks]}


def decide(figures: Figures, params: Params) -> Decision:
    """Answer from the figures alone; the same figures and parameters give the same decision."""
    level = params.gate.level / (len(figures.plan.looks) * params.ingest.max_attempts)
    questions = list(_questions(figures, params))
    failed = holm([_p_value(question) for question in questions], level)
    checks = tuple(_answer(question, level, fail) for question, fail in zip(questions, failed, strict=True))
    verdict = _overall(checks)
    return Decision(verdict, explain(verdict, checks), level, checks)


def harm(figures: Figures, slice_name: str, metric: str, against: Against) -> Estimate:
    """By how much the candidate is worse than the champion or the slice's anchor; `UNKNOWN` where figures lack."""
    if metric in ITEM_METRICS:
        pair = figures.paired("candidate", against, slice_name, metric)
        if pair is None:
            return UNKNOWN
        return relative_increase(*pair) if metric == "loss" else mean_estimate(pair[1] - pair[0])
    one, other = (figures.samples.get((model, slice_name)) for model in ("candidate", against))
    if one is None or other is None or one.units != other.units or one.features.shape != other.features.shape:
        return UNKNOWN
    scale = scaler(figures)
    if metric == "diversity":
        return kid.diversity_loss(scale(one.features), scale(other.features))
    real = figures.real.get(slice_name)
    if real is None:
        return UNKNOWN
    return kid.kid_difference(scale(one.features), scale(other.features), scale(real.features), real.own(one.units))


def scaler(figures: Figures) -> kid.Scaler:
    """What features are scaled with before they are compared."""
    return kid.Scaler.of([real.features for _, real in sorted(figures.real.items())])


def _questions(figures: Figures, params: Params) -> Iterator[Question]:
    plan, gate = figures.plan, params.gate
    for name in plan.slices:
        yield from _non_inferiority(figures, name, "champion", gate.nightly)
        if plan.anchors.get(name) != plan.champion:
            yield from _non_inferiority(figures, name, "anchor", gate.total)
    for name in plan.new_slices:
        metric = "fidelity" if plan.measures(name, "fidelity") else "loss"
        estimate, note = _asked(figures, name, metric, "champion")
        yield Question(name, metric, "champion", True, estimate, -gate.min_gain, note)


def _non_inferiority(figures: Figures, name: str, against: Against, margins: Margins) -> Iterator[Question]:
    for metric in METRICS:
        if figures.plan.measures(name, metric):
            estimate, note = _asked(figures, name, metric, against)
            yield Question(name, metric, against, False, estimate, getattr(margins, metric), note)


def _asked(figures: Figures, name: str, metric: str, against: Against) -> tuple[Estimate, str]:
    """The harm, and what is to be said where it is not known."""
    if _broken(figures, name, metric):
        return UNKNOWN, BROKEN
    estimate = harm(figures, name, metric, against)
    if estimate.known:
        return estimate, ""
    few = 0 < estimate.units < MIN_UNITS
    return estimate, f"{estimate.units} held-out items, {MIN_UNITS} are needed" if few else MISSING


def _broken(figures: Figures, name: str, metric: str) -> bool:
    values: Floats = np.array(list(figures.items.get(("candidate", name, metric), {}).values()))
    if metric not in ITEM_METRICS and ("candidate", name) in figures.samples:
        values = figures.samples["candidate", name].features
    return not np.isfinite(values).all()


def _p_value(question: Question) -> float:
    return 0.0 if question.note == BROKEN else question.harm.p_above(question.margin)


def _answer(question: Question, level: float, fail: bool) -> Check:
    upper = question.harm.upper(level)
    verdict: CheckVerdict = "fail" if fail else "pass" if upper < question.margin else "inconclusive"
    shown = question.harm.negated() if question.superiority else question.harm
    return Check(
        question.slice,
        question.metric,
        question.against,
        "superiority" if question.superiority else "non-inferiority",
        question.harm.units,
        _rounded(shown.value),
        _rounded(shown.lower(level)),
        _rounded(shown.upper(level)),
        abs(question.margin),
        verdict,
        question.note,
    )


def _rounded(value: float) -> float | None:
    """Six significant digits, which no machine disagrees about; None for what is not a number."""
    return float(f"{value:.6g}") + 0.0 if np.isfinite(value) else None


def _overall(checks: tuple[Check, ...]) -> Verdict:
    verdicts = {check.verdict for check in checks}
    if "fail" in verdicts:
        return "reject"
    return "promote" if verdicts == {"pass"} else "inconclusive"


def explain(verdict: Verdict, checks: tuple[Check, ...]) -> str:
    """One sentence that names every slice that decided the verdict, and by how much."""
    if verdict == "promote":
        return _promoted(checks)
    if not checks:
        return "inconclusive: there was nothing to check"
    decisive = [check for check in checks if check.verdict == ("fail" if verdict == "reject" else "inconclusive")]
    slices = {check.slice: [other for other in decisive if other.slice == check.slice] for check in decisive}
    head = "rejected" if verdict == "reject" else "inconclusive"
    return f"{head}: {'; '.join(_describe_slice(group) for group in slices.values())}"


def _describe_slice(group: list[Check]) -> str:
    """The check that people understand best, and which others say the same."""
    first, *others = sorted(group, key=lambda check: (TELLING.index(check.metric), check.against == "anchor"))
    also = dict.fromkeys(f"{check.metric}{_since(check)}{_by(check)}" for check in others)
    return describe(first) + (f" and in {', '.join(also)}" if also else "")


def _by(check: Check) -> str:
    return "" if check.estimate is None else f" (by {amount(check.metric, abs(check.estimate))})"


def describe(check: Check) -> str:
    """One check in words, such as `black-ink fell by 0.41 in fidelity (margin 0.08)`."""
    since = _since(check)
    if check.estimate is None or check.lower is None or check.upper is None:
        return f"{check.slice}: {check.metric}{since} is not known, {check.note or MISSING}"
    asked = amount(check.metric, check.margin)
    if check.kind == "superiority":
        between = f", between {amount(check.metric, check.lower)} and {amount(check.metric, check.upper)}"
        found = f"{'gained' if check.estimate >= 0 else 'lost'} {amount(check.metric, abs(check.estimate))}"
        doubt = between if check.verdict == "inconclusive" else ""
        return f"{check.slice} {found} in {check.metric} (a gain of {asked} was asked{doubt})"
    verb = "rose" if (check.estimate >= 0) == (check.metric in ("loss", "kid")) else "fell"
    changed = f"{verb} by {amount(check.metric, abs(check.estimate))} in {check.metric}{since}"
    possible = f", possibly {amount(check.metric, check.upper)}" if check.verdict == "inconclusive" else ""
    return f"{check.slice} {changed} (margin {asked}{possible})"


def _since(check: Check) -> str:
    return " since its anchor" if check.against == "anchor" else ""


def amount(metric: str, value: float) -> str:
    """A harm or gain in the metric's own unit: shares in percent."""
    return f"{100 * value:.3g} %" if metric in ("loss", "diversity") else f"{value:.2g}"


def _promoted(checks: tuple[Check, ...]) -> str:
    old = [check for check in checks if check.kind == "non-inferiority"]
    new = [check for check in checks if check.kind == "superiority"]
    closest = max(old, key=lambda check: (check.upper or 0) / check.margin, default=None)
    parts = [f"all {len(checks)} checks passed"]
    if closest:
        parts.append(f"closest to its margin: {describe(closest)}")
    parts.append(", ".join(describe(check) for check in new) or "no new slice, so no gain was asked")
    return "promote: " + "; ".join(parts)
