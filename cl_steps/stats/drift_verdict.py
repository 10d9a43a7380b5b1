"""The verdict on drift, as one pure function of the evidence and the thresholds.

    alarming   tonight's pictures do not fit their captions, are like no picture known, or most files were unusable
    drifted    first data of a slice, or a known slice differs from its reference; or a person asks for an update
    quiet      neither

The chance of a false `drifted` is at most `level` a night, and at most `level / 2` over all looks at one pending batch
together: half the level goes to each family, Holm's correction shares it among the slices, and the pending family
spends its half over its looks. The chance of a false `alarming` is at most `alarm_level`, Holm over all alarm tests.
Changed shares of the slices decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cl_steps.config import Drift
from cl_steps.stats.drift_evidence import Evidence, SliceEvidence
from cl_steps.stats.ranks import Shift
from cl_steps.stats.sequential import holm, spent_at
from cl_steps.stats.two_sample import Comparison

MANY = 0.25
"""Single odd items are left to the gate; more than this share of a slice's items is a poisoned slice."""


@dataclass(frozen=True)
class Verdict:
    """What follows, one sentence why, and the slices behind it; `tests` counts all tests that were made."""

    verdict: Literal["quiet", "drifted", "alarming"]
    why: str
    drifted: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()
    tests: int = 0


@dataclass(frozen=True)
class Alarm:
    """One alarm test of a slice: whether its effect is large enough to alarm, and its p-value."""

    slice: str
    text: str
    large: bool
    p_value: float


def decide(evidence: Evidence, knobs: Drift) -> Verdict:
    """The verdict; see the top of this module."""
    tests = alarm_tests(evidence, knobs)
    alarms = _alarms(tests, evidence, knobs)
    headlines = list(dict(reversed(alarms)).values())[::-1]  # the first of each slice
    new = tuple(own.name for own in evidence.slices if own.is_new and own.num_pending >= knobs.min_new_slice)
    drifted, changes = _drifted(evidence, knobs)
    num_tests = len(tests) + sum((own.tonight is not None) + (own.pending is not None) for own in evidence.slices)
    found = (drifted, new, tuple(text for _, text in alarms), num_tests)
    reasons = [f"first data of slice {name}" for name in new] + changes
    if alarms and not evidence.approved:
        return Verdict("alarming", "alarming: " + "; ".join(headlines), *found)
    if alarms:
        approval = f"drifted: approved by {evidence.approved}, though " + "; ".join(headlines)
        return Verdict("drifted", "; ".join([approval, *reasons]), *found)
    if reasons:
        return Verdict("drifted", "drifted: " + "; ".join(reasons), *found)
    if evidence.forced:
        return Verdict("drifted", f"forced by {evidence.forced}", *found)
    return Verdict("quiet", "quiet: " + _quiet(evidence), *found)


def floor_of(comparison: Comparison, knobs: Drift) -> float:
    """The smallest AUC that counts as a difference: `min_auc`, or what draws of the reference itself reach."""
    return max(knobs.min_auc, comparison.null_auc)


def alarm_tests(evidence: Evidence, knobs: Drift) -> tuple[Alarm, ...]:
    """Every alarm test that the evidence allows."""
    return tuple(alarm for own in evidence.slices for alarm in _alarm_tests_of(own, knobs))


def _alarm_tests_of(own: SliceEvidence, knobs: Drift) -> list[Alarm]:
    fits = _fit_tests(own)
    tests = [
        Alarm(own.name, _misfit(own.name, what, fit), fit.auc >= knobs.alarm_auc, fit.p_value)
        for what, fit in fits.items()
    ]
    if own.misfits is not None:
        text = f"{own.misfits.share:.0%} of the pictures of slice {own.name} hardly fit their captions"
        tests.append(Alarm(own.name, text, own.misfits.share > MANY, own.misfits.p_value))
    if own.outlandish is not None:
        fits_well = bool(fits) and all(fit.auc < knobs.min_auc for fit in fits.values())
        text = (
            f"{own.outlandish.share:.0%} of the pictures of slice {own.name} are like none known (noise, no contrast)"
        )
        large = own.outlandish.share > MANY and not fits_well
        tests.append(Alarm(own.name, text, large, own.outlandish.p_value))
    return tests


def _fit_tests(own: SliceEvidence) -> Mapping[str, Shift]:
    """Known slices: each measure alone may alarm. New ones: only both together, since a new style may fit loosely."""
    measured = {"agreement": own.agreement, "specificity": own.specificity}
    shifts = {name: shift for name, shift in measured.items() if shift is not None}
    if own.is_new and len(shifts) > 1:
        auc, p_value = min(shift.auc for shift in shifts.values()), max(shift.p_value for shift in shifts.values())
        return {"agreement and specificity": Shift(auc, p_value)}
    return shifts


def _misfit(name: str, what: str, fit: Shift) -> str:
    return f"pictures of slice {name} do not fit their captions ({what}: AUC {fit.auc:.2f}, p {fit.p_value:.1g})"


def _alarms(tests: tuple[Alarm, ...], evidence: Evidence, knobs: Drift) -> list[tuple[str, str]]:
    """(slice, text) of every alarm; that of the files that arrived belongs to no slice."""
    adjusted = holm([test.p_value for test in tests])
    found = [(test.slice, test.text) for test, p in zip(tests, adjusted, strict=True) if _fires(test, p, knobs)]
    num_arrived = evidence.num_new + evidence.num_quarantined
    if evidence.num_quarantined > knobs.max_quarantine_share * num_arrived:
        found.append(("", f"{evidence.num_quarantined} of {num_arrived} files that arrived were unusable"))
    return found


def _fires(test: Alarm, adjusted: float, knobs: Drift) -> bool:
    return test.large and adjusted <= knobs.alarm_level


def _drifted(evidence: Evidence, knobs: Drift) -> tuple[tuple[str, ...], list[str]]:
    """The known slices that differ from their reference, and a reason each."""
    tonight = {own.name: own.tonight for own in evidence.slices if own.tonight is not None}
    pending = {own.name: own.pending for own in evidence.slices if own.pending is not None}
    found = _differing(pending, spent_at(evidence.look, knobs.level / 2), knobs)
    found |= _differing(tonight, knobs.level / 2, knobs)
    reasons = [
        f"slice {name} differs from what is known of it (AUC {found[name].auc:.2f}, p {found[name].p_value:.1g})"
        for name in sorted(found)
    ]
    return tuple(sorted(found)), reasons


def _differing(family: Mapping[str, Comparison], level: float, knobs: Drift) -> dict[str, Comparison]:
    """The slices of one family of tests that are significant at `level`, Holm-corrected, and large enough to matter."""
    adjusted = holm([comparison.p_value for comparison in family.values()])
    return {
        name: comparison
        for (name, comparison), p_value in zip(family.items(), adjusted, strict=True)
        if p_value <= level and comparison.auc >= floor_of(comparison, knobs)
    }


def _quiet(evidence: Evidence) -> str:
    small = [own.name for own in evidence.slices if own.is_new]
    text = f"no known slice of {len(evidence.slices) - len(small)} differs from what is known of it"
    return text + (f"; too few items yet of new slice {', '.join(small)}" if small else "")
