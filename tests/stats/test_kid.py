"""KID and diversity: brute force, unbiasedness, coverage of the paired jackknife."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from cl_steps.stats import kid

Floats = NDArray[np.float64]


def features(seed: int, *shape: int, shift: float = 0.0) -> Floats:
    return np.random.default_rng(seed).normal(shift, 1, shape)


def captions(n: int, m: int) -> NDArray[np.bool_]:
    """Image j has the caption of unit j modulo n."""
    return np.arange(n)[:, None] == np.arange(m)[None, :] % n


def brute_force_kid(samples: Floats, real: Floats, own: NDArray[np.bool_]) -> float:
    def k(x: Floats, y: Floats) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    n, m = len(samples), len(real)
    pairs = [(i, j) for i, j in product(range(n), range(n)) if i != j]
    xx = np.mean([k(x, y) for i, j in pairs for x in samples[i] for y in samples[j]])
    same = [[i == j or any(own[u, i] and own[u, j] for u in range(n)) for j in range(m)] for i in range(m)]
    yy = np.mean([k(real[i], real[j]) for i, j in product(range(m), range(m)) if not same[i][j]])
    xy = np.mean([k(x, real[j]) for i in range(n) for x in samples[i] for j in range(m) if not own[i, j]])
    return float(xx + yy - 2 * xy)


@pytest.mark.parametrize("seeds", [1, 3])
def test_kid_is_its_definition(seeds: int) -> None:
    samples, real, own = features(0, 9, seeds, 5, shift=0.3), features(1, 14, 5), captions(9, 14)
    assert kid.kid(samples, real, own) == pytest.approx(brute_force_kid(samples, real, own))


def test_difference_of_kids_and_its_leave_outs_by_brute_force() -> None:
    candidate, champion, real = features(0, 9, 2, 4, shift=0.4), features(1, 9, 2, 4), features(2, 10, 4)
    own = captions(9, 10)

    def difference(rows: list[int], images: list[int]) -> float:
        some = own[np.ix_(rows, images)]
        return kid.kid(candidate[rows], real[images], some) - kid.kid(champion[rows], real[images], some)

    every, images = list(range(9)), list(range(10))
    by_prompt = np.array([difference([row for row in every if row != out], images) for out in every])
    by_image = np.array([difference(every, [row for row in images if row != out]) for out in images])
    variance = sum(
        (len(values) - 1) / len(values) * ((values - values.mean()) ** 2).sum() for values in (by_prompt, by_image)
    )
    estimate = kid.kid_difference(candidate, champion, real, own)
    assert estimate.value == pytest.approx(difference(every, images))
    assert estimate.error == pytest.approx(np.sqrt(variance))
    assert estimate.units == 9


def test_diversity_and_its_leave_outs_by_brute_force() -> None:
    candidate, champion = features(0, 9, 2, 4), features(1, 9, 2, 4)

    def spread(samples: Floats) -> float:
        pairs = [(i, j) for i, j in product(range(len(samples)), repeat=2) if i != j]
        return float(
            np.mean([np.sqrt(((x - y) ** 2).mean()) for i, j in pairs for x in samples[i] for y in samples[j]])
        )

    assert kid.diversity(candidate) == pytest.approx(spread(candidate))
    rows = [[row for row in range(9) if row != out] for out in range(9)]
    without = np.array([1 - spread(candidate[keep]) / spread(champion[keep]) for keep in rows])
    estimate = kid.diversity_loss(candidate, champion)
    assert estimate.value == pytest.approx(1 - spread(candidate) / spread(champion))
    assert estimate.error == pytest.approx(np.sqrt(8 / 9 * ((without - without.mean()) ** 2).sum()))


def test_kid_is_unbiased_though_samples_and_images_share_captions() -> None:
    """Every caption fixes part of its pictures: samples and images of one distribution, drawn for the same captions."""

    def value(seed: int) -> float:
        rng = np.random.default_rng(seed)
        means = 2 * rng.normal(size=(20, 8))
        samples = means[:, None] + rng.normal(size=(20, 2, 8))
        return kid.kid(samples, means[np.arange(25) % 20] + rng.normal(size=(25, 8)), captions(20, 25))

    values = [value(seed) for seed in range(300)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(300)


def test_equal_models_differ_by_exactly_nothing() -> None:
    samples, real = features(0, 20, 1, 8), features(1, 20, 8)
    estimate = kid.kid_difference(samples, samples, real, captions(20, 20))
    assert (estimate.value, estimate.error, estimate.upper(0.01)) == (0, 0, 0)
    assert kid.diversity_loss(samples, samples).value == 0


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_bound_on_a_kid_difference_covers(shift: float) -> None:
    """Models that share half of their noise, as common seeds make them; the truth is estimated from a large draw."""
    rng = np.random.default_rng(7)

    def draw(units: int) -> tuple[Floats, Floats, Floats]:
        shared = rng.normal(size=(units, 1, 6)) * 0.7
        one, other = (shared + 0.7 * rng.normal(size=(units, 1, 6)) for _ in range(2))
        return one + shift, other, rng.normal(size=(units, 6))

    truth = np.mean([kid.kid_difference(*draw(400), captions(400, 400)).value for _ in range(20)])
    runs = [kid.kid_difference(*draw(48), captions(48, 48)) for _ in range(300)]
    assert np.mean([run.upper(0.05) < truth for run in runs]) < 0.09
    assert np.mean([run.lower(0.05) > truth for run in runs]) < 0.09


def test_order_of_prompts_and_images_does_not_matter() -> None:
    candidate, champion, real = features(0, 12, 1, 4), features(1, 12, 1, 4), features(2, 9, 4)
    order = np.random.default_rng(0).permutation(12)
    own = captions(12, 9)
    one = kid.kid_difference(candidate, champion, real, own)
    other = kid.kid_difference(candidate[order], champion[order], real[::-1], own[order, ::-1])
    assert (one.value, one.error) == pytest.approx((other.value, other.error))


def test_scaler_makes_every_slice_count_the_same() -> None:
    groups = [features(0, 500, 3, shift=4), features(1, 20, 3, shift=-4)]
    scale = kid.Scaler.of(groups)
    assert np.mean([scale(group).mean() for group in groups]) == pytest.approx(0)
    assert np.mean([(scale(group) ** 2).mean() for group in groups]) == pytest.approx(1)


def test_too_little_or_broken_is_not_known() -> None:
    few, real = features(0, 5, 1, 4), features(1, 20, 4)
    assert not kid.kid_difference(few, few, real, captions(5, 20)).known
    broken = features(0, 20, 1, 4)
    broken[3] = np.nan
    assert not kid.kid_difference(broken, features(1, 20, 1, 4), real, captions(20, 20)).known
    assert np.isnan(kid.kid(few[:1], real, captions(1, 20)))
