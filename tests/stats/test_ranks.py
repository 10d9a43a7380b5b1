"""AUC and Mann-Whitney against brute force, enumeration and scipy."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from cl_steps.stats.ranks import auc_of, auc_variance, shift_above


def brute_force_auc(low: np.ndarray, high: np.ndarray) -> float:
    return float(np.mean([(a < b) + 0.5 * (a == b) for a in low for b in high]))


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_the_share_of_pairs_in_order_with_ties_a_half(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = rng.integers(0, 6, 13), rng.integers(1, 8, 9)
    assert auc_of(low, high) == pytest.approx(brute_force_auc(low, high))


def test_auc_of_two_normals_is_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.normal(0, 1, 20_000), rng.normal(1, 1, 20_000)
    assert auc_of(low, high) == pytest.approx(stats.norm.cdf(1 / np.sqrt(2)), abs=0.005)


def test_small_p_values_are_those_of_all_arrangements() -> None:
    low, high = np.array([0.3, 1.2, 2.2, 0.1]), np.array([1.7, 3.0, 0.9])
    pooled = np.concatenate([low, high])
    observed = auc_of(low, high)
    aucs = []
    for chosen in combinations(range(7), 3):
        is_high = np.isin(np.arange(7), chosen)
        aucs.append(auc_of(pooled[~is_high], pooled[is_high]))
    assert shift_above(low, high).p_value == pytest.approx(np.mean(np.array(aucs) >= observed - 1e-12))


def test_with_ties_the_test_is_scipys_asymptotic_one() -> None:
    rng = np.random.default_rng(1)
    low, high = rng.integers(0, 9, 40).astype(float), rng.integers(2, 11, 30).astype(float)
    expected = stats.mannwhitneyu(high, low, alternative="greater", method="asymptotic")
    found = shift_above(low, high)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.auc == pytest.approx(expected.statistic / (40 * 30))


def test_identical_values_are_no_evidence() -> None:
    found = shift_above(np.ones(20), np.ones(15))
    assert found.auc == 0.5
    assert found.p_value >= 0.5


def test_separated_samples_reach_levels_far_below_any_permutation_count() -> None:
    assert shift_above(np.arange(75.0), 100 + np.arange(20.0)).p_value < 1e-15


def test_variance_of_the_auc_matches_its_spread_over_samples() -> None:
    rng = np.random.default_rng(2)
    samples = [(rng.normal(0, 1, 60), rng.normal(0.7, 1, 40)) for _ in range(600)]
    aucs = [auc_of(*sample) for sample in samples]
    assert np.mean([auc_variance(*sample) for sample in samples]) == pytest.approx(np.var(aucs), rel=0.15)
