"""The verdict as a table: evidence in, verdict out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cl_steps.config import Drift
from cl_steps.stats.drift_evidence import Evidence, Odd, SliceEvidence
from cl_steps.stats.drift_verdict import decide
from cl_steps.stats.ranks import Shift
from cl_steps.stats.two_sample import Comparison

KNOBS = Drift(level=0.01, alarm_level=0.001, min_auc=0.6, alarm_auc=0.75, min_new_slice=16)


def compared(auc: float, p_value: float, null_auc: float = 0.55) -> Comparison:
    return Comparison(auc, auc - 0.1, auc + 0.1, p_value, null_auc, 0.0, 0.5)


SAME = compared(0.52, 0.4)
OTHER = compared(0.9, 1e-9)
FITS = Shift(0.5, 0.5)
MISFITS = Shift(0.95, 1e-12)
KNOWN = SliceEvidence("ink", 200, 40, 80, SAME, SAME, FITS, FITS, Odd(0.0, 1.0), Odd(0.0, 1.0))
NEW = SliceEvidence("neon", 0, 300, 300, None, None, FITS, FITS, None, Odd(0.0, 1.0))


@pytest.mark.parametrize(
    ("own", "verdict"),
    [
        (KNOWN, "quiet"),
        (replace(KNOWN, tonight=OTHER), "drifted"),
        (replace(KNOWN, pending=OTHER), "drifted"),
        (replace(KNOWN, tonight=compared(0.59, 1e-9)), "quiet"),  # certain, but too small to matter
        (replace(KNOWN, tonight=compared(0.65, 1e-9, null_auc=0.66)), "quiet"),  # the reference itself reaches that
        (replace(KNOWN, tonight=compared(0.9, 0.0051)), "quiet"),  # half the level is tonight's
        (replace(KNOWN, tonight=compared(0.9, 0.0049)), "drifted"),
        (replace(KNOWN, pending=compared(0.9, 0.0031)), "quiet"),  # and of the other half look 1 has 6/pi^2
        (replace(KNOWN, pending=compared(0.9, 0.0030)), "drifted"),
        (replace(KNOWN, tonight=None, pending=None), "quiet"),
        (NEW, "drifted"),
        (replace(NEW, num_pending=15), "quiet"),
        (replace(KNOWN, agreement=MISFITS), "alarming"),
        (replace(KNOWN, specificity=MISFITS), "alarming"),
        (replace(KNOWN, agreement=Shift(0.95, 0.001)), "quiet"),  # Holm over this slice's four alarm tests
        (replace(KNOWN, agreement=Shift(0.74, 1e-9)), "quiet"),
        (replace(KNOWN, tonight=OTHER, agreement=Shift(0.74, 1e-9)), "drifted"),
        (replace(NEW, agreement=MISFITS), "drifted"),  # a new style fits loosely, and its captions are its own
        (replace(NEW, agreement=MISFITS, specificity=MISFITS), "alarming"),
        (replace(NEW, agreement=MISFITS, specificity=None), "alarming"),
        (replace(KNOWN, misfits=Odd(0.3, 1e-9)), "alarming"),
        (replace(KNOWN, misfits=Odd(0.2, 1e-9)), "quiet"),
        (replace(NEW, outlandish=Odd(0.9, 1e-9)), "drifted"),  # a grainy style whose captions fit
        (replace(NEW, outlandish=Odd(0.9, 1e-9), agreement=Shift(0.7, 0.01), specificity=None), "alarming"),
        (replace(NEW, outlandish=Odd(0.9, 1e-9), agreement=None, specificity=None), "alarming"),
    ],
)
def test_one_slice(own: SliceEvidence, verdict: str) -> None:
    assert decide(Evidence((own,)), KNOBS).verdict == verdict


def test_later_looks_at_the_pending_batch_need_more() -> None:
    own = replace(KNOWN, pending=compared(0.9, 0.001))
    assert decide(Evidence((own,), look=1), KNOBS).verdict == "drifted"
    assert decide(Evidence((own,), look=2), KNOBS).verdict == "quiet"


def test_more_slices_need_more() -> None:
    own, other = replace(KNOWN, tonight=compared(0.9, 0.004)), replace(KNOWN, name="other")
    assert decide(Evidence((own,)), KNOBS).verdict == "drifted"
    assert decide(Evidence((own, other)), KNOBS).verdict == "quiet"


def test_why_names_the_slices_and_the_first_data() -> None:
    verdict = decide(Evidence((replace(KNOWN, tonight=OTHER), NEW)), KNOBS)
    assert verdict.why == (
        "drifted: first data of slice neon; slice ink differs from what is known of it (AUC 0.90, p 1e-09)"
    )
    assert (verdict.drifted, verdict.new) == (("ink",), ("neon",))


@pytest.mark.parametrize(
    ("new", "quarantined", "verdict"), [(20, 19, "quiet"), (20, 20, "quiet"), (20, 21, "alarming")]
)
def test_mostly_unusable_files_alarm(new: int, quarantined: int, verdict: str) -> None:
    assert decide(Evidence((KNOWN,), num_new=new, num_quarantined=quarantined), KNOBS).verdict == verdict


def test_an_approval_turns_an_alarm_into_drift_and_is_named() -> None:
    verdict = decide(Evidence((replace(KNOWN, agreement=MISFITS),), approved="kim"), KNOBS)
    assert verdict.verdict == "drifted"
    assert "approved by kim" in verdict.why
    assert "do not fit their captions" in verdict.why


def test_an_approval_alone_starts_nothing() -> None:
    assert decide(Evidence((KNOWN,), approved="kim"), KNOBS).verdict == "quiet"


def test_force_turns_quiet_into_drift_and_never_an_alarm() -> None:
    forced = decide(Evidence((KNOWN,), forced="kim: for the fair"), KNOBS)
    assert (forced.verdict, forced.why) == ("drifted", "forced by kim: for the fair")
    assert decide(Evidence((replace(KNOWN, agreement=MISFITS),), forced="kim: x"), KNOBS).verdict == "alarming"


def test_why_says_one_thing_a_slice_and_the_figures_all() -> None:
    poisoned = replace(KNOWN, agreement=MISFITS, specificity=MISFITS, misfits=Odd(0.9, 1e-9))
    verdict = decide(Evidence((poisoned, replace(poisoned, name="sepia")), num_new=1, num_quarantined=9), KNOBS)
    assert len(verdict.alarms) == 7
    assert verdict.why == (
        "alarming: pictures of slice ink do not fit their captions (agreement: AUC 0.95, p 1e-12); "
        "pictures of slice sepia do not fit their captions (agreement: AUC 0.95, p 1e-12); "
        "9 of 10 files that arrived were unusable"
    )


def test_the_verdict_counts_every_test_that_was_made() -> None:
    assert decide(Evidence((KNOWN, NEW)), KNOBS).tests == 6 + 2


def test_an_empty_batch_is_quiet() -> None:
    assert decide(Evidence(()), KNOBS).verdict == "quiet"
