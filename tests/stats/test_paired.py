"""Bounds of paired differences: closed forms, coverage by simulation, Holm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from cl_steps.stats.paired import (
    MIN_UNITS,
    Estimate,
    holm,
    mean_estimate,
    ratio_estimate,
    relative_increase,
)

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]

HARMS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, n: rng.normal(size=n), 0.0),
    "exponential": (lambda rng, n: rng.exponential(size=n), 1.0),
    "minus exponential": (lambda rng, n: -rng.exponential(size=n), -1.0),
    "student 3": (lambda rng, n: rng.standard_t(3, size=n), 0.0),
}


def test_symmetric_differences_give_students_bound() -> None:
    differences = np.array([-3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0]) + 5
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.90)
    estimate = mean_estimate(differences)
    assert estimate.lower(0.05) == pytest.approx(expected.low)
    assert estimate.upper(0.05) == pytest.approx(expected.high)
    assert estimate.p_above(4.0) == pytest.approx(stats.ttest_1samp(differences, 4, alternative="greater").pvalue)


@pytest.mark.parametrize("name", HARMS)
@pytest.mark.parametrize("units", [20, 50, 100])
def test_a_harm_on_its_margin_rarely_passes(name: str, units: int) -> None:
    draw, truth = HARMS[name]
    rng = np.random.default_rng(units)
    runs = [mean_estimate(draw(rng, units)) for _ in range(600)]
    passed = np.mean([run.upper(0.05) < truth for run in runs])
    failed = np.mean([run.lower(0.05) > truth for run in runs])
    assert max(passed, failed) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600) + (0.03 if units == 20 else 0)


def test_skewed_harms_pass_less_often_than_with_the_percentile_bootstrap() -> None:
    rng, truth = np.random.default_rng(0), float(np.exp(0.5))
    ours = percentile = 0
    for _ in range(400):
        harm = rng.lognormal(size=20)
        ours += mean_estimate(harm).upper(0.05) < truth
        means = harm[rng.integers(0, 20, (500, 20))].mean(axis=1)
        percentile += float(np.quantile(means, 0.95)) < truth
    assert percentile > 0.13 * 400
    assert ours < 0.75 * percentile


def test_ratio_bound_covers() -> None:
    rng = np.random.default_rng(3)
    outside = 0
    for _ in range(500):
        champion = rng.gamma(4, 1, size=60)
        candidate = champion * (1.1 + 0.1 * rng.normal(size=60))
        outside += relative_increase(candidate, champion).upper(0.05) < 0.1
    assert outside / 500 < 0.08


def test_ratio_of_constant_shares_is_exact() -> None:
    champion = np.arange(1.0, 21)
    estimate = relative_increase(1.25 * champion, champion)
    assert estimate.value == pytest.approx(0.25)
    assert estimate.error < 1e-10


def test_equal_models_differ_by_exactly_nothing() -> None:
    values = np.random.default_rng(0).random(30)
    estimate = relative_increase(values, values)
    assert (estimate.value, estimate.error, estimate.upper(0.001), estimate.lower(0.001)) == (0, 0, 0, 0)
    assert estimate.p_above(0.0) == 1


@pytest.mark.parametrize("skewness", [-2.0, -0.3, 0.0, 0.4, 3.0])
def test_bounds_and_p_values_agree(skewness: float) -> None:
    estimate = Estimate(0.7, 0.1, 25, skewness)
    assert estimate.p_below(estimate.upper(0.013)) == pytest.approx(0.013, rel=1e-6)
    assert estimate.p_above(estimate.lower(0.013)) == pytest.approx(0.013, rel=1e-6)
    assert estimate.negated().upper(0.02) == pytest.approx(-estimate.lower(0.02))


@pytest.mark.parametrize(
    "bad", [np.full(20, np.nan), np.array([1.0, np.inf] * 10), np.arange(MIN_UNITS - 1.0), np.empty(0)]
)
def test_nothing_is_bounded_by_what_is_not_known(bad: Floats) -> None:
    estimate = mean_estimate(bad)
    assert not estimate.known
    assert estimate.upper(0.05) == np.inf
    assert estimate.lower(0.05) == -np.inf
    assert estimate.p_above(-1e9) == estimate.p_below(1e9) == 1


def test_a_ratio_needs_a_positive_denominator() -> None:
    assert not ratio_estimate(np.ones(20), np.zeros(20)).known
    assert not ratio_estimate(np.ones(20), -np.ones(20)).known


def test_holm_known_example() -> None:
    # 0.005 <= 0.05/4 and 0.01 <= 0.05/3 are rejected; 0.03 > 0.05/2 stops, and all that follow stay.
    assert holm([0.01, 0.04, 0.03, 0.005], 0.05) == [True, False, False, True]
    assert holm([], 0.05) == []
