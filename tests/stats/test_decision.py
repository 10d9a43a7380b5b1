"""The rule that decides: a table of nights, failing closed, and figures that survive their folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cl_steps.config import Gate, Margins, Params
from cl_steps.errors import IntegrityError
from cl_steps.stats.decision import Decision, decide
from cl_steps.stats.figures import Figures, Floats, read_figures, write_figures
from tests.stats.nights import UNITS, night

PARAMS = Params()


def verdicts(decision: Decision) -> dict[tuple[str, str, str], str]:
    return {(check.slice, check.metric, check.against): check.verdict for check in decision.checks}


def test_the_same_model_passes_everything() -> None:
    decision = decide(night(), PARAMS)
    assert decision.verdict == "promote"
    assert all(check.estimate == 0 == check.upper for check in decision.checks)
    assert "no new slice, so no gain was asked" in decision.why


def test_a_slice_that_fell_is_named_with_its_fall() -> None:
    decision = decide(night(fidelity={"black-ink": -0.41}), PARAMS)
    assert decision.verdict == "reject"
    assert decision.why == "rejected: black-ink fell by 0.41 in fidelity (margin 0.08)"


def test_a_rise_of_the_loss_rejects() -> None:
    decision = decide(night(loss={"black-ink": 2.0, "blue-ink": 1.001}), PARAMS)
    assert decision.verdict == "reject"
    assert decision.why == "rejected: black-ink rose by 100 % in loss (margin 5 %)"


def test_a_shift_of_the_samples_rejects() -> None:
    decision = decide(night(shift={"blue-ink": 1.5}), PARAMS)
    assert decision.verdict == "reject"
    assert "blue-ink rose by" in decision.why
    assert "in kid" in decision.why


def test_collapse_of_the_samples_rejects() -> None:
    decision = decide(night(shrink={"blue-ink": 0.3}), PARAMS)
    assert verdicts(decision)["blue-ink", "diversity", "champion"] == "fail"


def test_a_fall_near_its_margin_is_inconclusive() -> None:
    decision = decide(night(fidelity={"black-ink": -0.079}), PARAMS)
    assert decision.verdict == "inconclusive"
    assert decision.why.startswith("inconclusive: black-ink fell by 0.082 in fidelity (margin 0.08, possibly 0.089")


@pytest.mark.parametrize(("gain", "verdict"), [(0.4, "promote"), (0.05, "inconclusive"), (0.0, "reject")])
def test_a_new_slice_must_gain(gain: float, verdict: str) -> None:
    decision = decide(night(new=("neon-ink",), fidelity={"neon-ink": gain}), PARAMS)
    assert decision.verdict == verdict
    assert verdicts(decision)["neon-ink", "fidelity", "champion"] != "pass" or verdict == "promote"
    assert "neon-ink gained" in decision.why


def test_without_fidelity_a_new_slice_must_gain_in_loss() -> None:
    figures = night(new=("neon-ink",), loss={"neon-ink": 0.5}, no_fidelity=True)
    decision = decide(figures, PARAMS)
    assert decision.verdict == "promote"
    assert ("neon-ink", "loss", "champion") in verdicts(decision)
    assert not any(check.metric == "fidelity" for check in decision.checks)


def test_small_steps_add_up_against_the_anchor() -> None:
    figures = night(fidelity={"black-ink": -0.05}, anchor_fidelity={"black-ink": 0.25})
    decision = decide(figures, PARAMS)
    table = verdicts(decision)
    assert table["black-ink", "fidelity", "champion"] == "pass"
    assert table["black-ink", "fidelity", "anchor"] == "fail"
    assert "since its anchor (margin 0.15)" in decision.why


@pytest.mark.parametrize("lost", ["item", "metric", "samples", "slice", "everything", "real"])
def test_what_is_missing_never_passes(lost: str) -> None:
    figures = night()
    items, samples, real = (dict(part) for part in (figures.items, figures.samples, figures.real))
    if lost == "item":
        key = ("candidate", "black-ink", "loss")
        items[key] = dict(list(items[key].items())[1:])
    if lost in ("metric", "everything"):
        items = {key: value for key, value in items.items() if lost != "everything" and key[2] != "fidelity"}
    if lost in ("samples", "everything"):
        samples = {key: value for key, value in samples.items() if lost != "everything" and key[0] != "champion"}
    if lost == "slice":
        items = {key: value for key, value in items.items() if key[1] != "black-ink"}
    if lost == "real":
        del real["black-ink"]
    decision = decide(Figures(figures.plan, items, samples, real), PARAMS)
    assert decision.verdict == "inconclusive"


def test_a_plan_without_slices_never_passes() -> None:
    plan = dataclasses.replace(night().plan, slices=())
    assert decide(Figures(plan, {}, {}, {}), PARAMS).verdict == "inconclusive"


def test_a_candidate_whose_figures_are_not_numbers_is_rejected() -> None:
    figures = night()
    items = dict(figures.items)
    items["candidate", "black-ink", "loss"] = dict.fromkeys(items["candidate", "black-ink", "loss"], float("nan"))
    decision = decide(Figures(figures.plan, items, figures.samples, figures.real), PARAMS)
    assert decision.verdict == "reject"
    assert "not numbers" in decision.why


def test_too_few_units_never_pass() -> None:
    decision = decide(night(units=6), PARAMS)
    assert decision.verdict == "inconclusive"
    assert "6 held-out items, 8 are needed" in decision.why


def test_a_single_unit_is_too_few_and_not_none() -> None:
    assert "1 held-out items, 8 are needed" in decide(night(units=1), PARAMS).why


def test_a_promotion_names_the_check_closest_to_its_own_margin() -> None:
    """Closest by share of the margin: 4 of 5 % in loss are more than 0.05 of 0.08 in fidelity."""
    decision = decide(night(loss={"blue-ink": 1.04}, fidelity={"black-ink": -0.05}), PARAMS)
    assert decision.verdict == "promote"
    assert "closest to its margin: blue-ink rose by 4 % in loss (margin 5 %)" in decision.why


def test_more_looks_and_attempts_ask_for_more() -> None:
    levels = [
        decide(night(looks=looks), Params.model_validate({"ingest": {"max_attempts": attempts}})).level
        for looks, attempts in (((48,), 1), ((48, 96), 1), ((48, 96), 3))
    ]
    assert levels == pytest.approx([0.05, 0.025, 0.05 / 6])


def test_noise_alone_is_not_rejected() -> None:
    """A candidate that differs by noise only: the whole family of checks errs less often than its level."""
    rejected = sum(decide(night(noise=0.3, seed=seed), PARAMS).verdict == "reject" for seed in range(60))
    assert rejected <= 1


def test_a_harm_on_the_margin_hardly_ever_promotes() -> None:
    params = Params(
        gate=Gate(
            nightly=Margins(loss=9, kid=9, diversity=0.9), total=Margins(loss=9, fidelity=1, kid=9, diversity=0.9)
        )
    )
    figures = [night(fidelity={"black-ink": -0.08}, noise=0.2, seed=seed) for seed in range(150)]
    assert sum(decide(one, params).verdict == "promote" for one in figures) <= 5


def test_a_total_margin_below_the_nightly_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"total\.kid must not be below"):
        Gate(total=Margins(loss=1, fidelity=1, kid=0.001, diversity=1))


def test_figures_survive_their_folder_byte_for_byte(tmp_path: Path) -> None:
    figures = night(new=("neon-ink",), noise=0.1)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_figures(tmp_path / name, figures)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    back = read_figures(tmp_path / "one")
    assert back.plan == figures.plan
    assert back.items == figures.items
    assert decide(back, PARAMS) == decide(figures, PARAMS)
    same(back.samples["candidate", "black-ink"].features, figures.samples["candidate", "black-ink"].features)


def test_the_mean_of_a_figure_over_its_units() -> None:
    figures = night()
    values = list(figures.items["candidate", "black-ink", "loss"].values())
    assert figures.mean("candidate", "black-ink", "loss") == pytest.approx(sum(values) / UNITS)
    assert figures.mean("candidate", "no-ink", "loss") is None


def test_unreadable_figures_are_an_integrity_error(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="run evaluate again"):
        read_figures(tmp_path)


def same(one: Floats, other: Floats) -> None:
    assert one.shape == other.shape == (UNITS, 1, 6)
    assert np.array_equal(one, other)
