"""The two-sample test: exact under the null, powerful where it should be; MMD against its definition."""

import numpy as np
import pytest

from cl_steps.stats import two_sample
from cl_steps.stats.ranks import shift_above
from cl_steps.stats.two_sample import (
    MIN_ITEMS,
    NUM_PERMUTATIONS,
    _kernel,
    compare,
    cross_scores,
    discriminant,
    mmd_test,
    null_auc,
)


def test_p_values_under_the_null_are_not_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    # They have random numbers of their own: of what else a comparison draws, one is enough here.
    monkeypatch.setattr(two_sample, "NULL_DRAWS", 1)
    monkeypatch.setattr(two_sample, "NUM_PERMUTATIONS", 1)
    rng = np.random.default_rng(3)
    p_values = []
    for number in range(200):
        items = np.exp(rng.normal(size=(60, 10)) * 0.7)  # skewed columns
        found = compare(items[:40], items[40:], np.random.SeedSequence(number))
        assert found is not None
        p_values.append(found.p_value)
    for level in (0.05, 0.1, 0.2):
        slack = 3 * np.sqrt(level * (1 - level) / 200)
        assert np.mean(np.array(p_values) <= level) <= level + slack


def test_both_directions_are_paid_for() -> None:
    """Whoever takes the better of two p-values doubles it."""
    rng = np.random.default_rng(9)
    reference, new = rng.normal(size=(60, 5)), rng.normal(0.5, 1, size=(30, 5))
    seed = np.random.SeedSequence(0)
    found = compare(reference, new, np.random.SeedSequence(0))
    assert found is not None
    pairs = cross_scores(reference, new, np.random.default_rng(seed.spawn(3)[0]))
    assert found.p_value == pytest.approx(2 * min(shift_above(*pair).p_value for pair in pairs))


def test_a_shift_of_one_deviation_in_one_column_of_twenty_is_found() -> None:
    rng = np.random.default_rng(4)
    reference, new = rng.normal(size=(150, 20)), rng.normal(size=(80, 20))
    new[:, 7] += 1.5
    found = compare(reference, new, np.random.SeedSequence(0))
    assert found is not None
    assert found.auc > 0.75
    assert found.lower > 0.65
    assert found.p_value < 1e-6
    assert found.mmd_p_value <= 0.01


def test_the_direction_is_that_of_gaussian_classes() -> None:
    rng = np.random.default_rng(5)
    factor = np.array([[1.0, 0.0], [0.8, 0.6]])
    reference = rng.normal(size=(20_000, 2)) @ factor.T
    new = rng.normal(size=(20_000, 2)) @ factor.T + [1.0, 0.0]
    _, direction = discriminant(reference, new)
    expected = np.linalg.solve(factor @ factor.T, [1.0, 0.0])
    assert direction / np.linalg.norm(direction) == pytest.approx(expected / np.linalg.norm(expected), abs=0.03)


def test_a_column_that_is_constant_within_both_sets_but_differs_decides() -> None:
    rng = np.random.default_rng(6)
    reference, new = rng.normal(size=(40, 3)), rng.normal(size=(30, 3))
    reference[:, 1], new[:, 1] = 32.0, 64.0
    found = compare(reference, new, np.random.SeedSequence(0))
    assert found is not None
    assert found.auc == 1.0


def test_columns_that_never_change_do_no_harm() -> None:
    rng = np.random.default_rng(7)
    reference, new = rng.normal(size=(40, 3)), rng.normal(size=(30, 3))
    reference[:, 1] = new[:, 1] = 32.0
    found = compare(reference, new, np.random.SeedSequence(0))
    assert found is not None
    assert 0.2 < found.auc < 0.8


def test_every_item_is_scored_once() -> None:
    rng = np.random.default_rng(8)
    (a, b), (c, d) = cross_scores(rng.normal(size=(21, 2)), rng.normal(size=(17, 2)), rng)
    assert (len(a) + len(c), len(b) + len(d)) == (21, 17)


def test_the_same_seed_gives_the_same_figures_and_another_one_others() -> None:
    rng = np.random.default_rng(9)
    reference, new = rng.normal(size=(60, 4)), rng.normal(size=(30, 4))
    first = compare(reference, new, np.random.SeedSequence(1))
    assert first == compare(reference, new, np.random.SeedSequence(1))
    assert first != compare(reference, new, np.random.SeedSequence(2))


def test_too_few_items_are_not_tested() -> None:
    few, many = np.zeros((MIN_ITEMS - 1, 2)), np.ones((50, 2))
    assert compare(few, many, np.random.SeedSequence(0)) is None
    assert compare(many, few, np.random.SeedSequence(0)) is None


def test_the_null_auc_falls_with_size_and_stays_half_where_nothing_can_be_drawn() -> None:
    rng = np.random.default_rng(10)
    reference = rng.normal(size=(400, 5))
    small, large = null_auc(reference, 20, rng), null_auc(reference, 200, rng)
    assert 0.5 < large < small < 0.8
    assert null_auc(reference[:10], 20, rng) == 0.5


def test_mmd_is_its_definition() -> None:
    rng = np.random.default_rng(11)
    x, y = rng.normal(size=(12, 3)), rng.normal(0.5, 1, size=(9, 3))
    kernel = _kernel(np.concatenate([x, y]))
    within_x = sum(kernel[i, j] for i in range(12) for j in range(12) if i != j) / (12 * 11)
    within_y = sum(kernel[i, j] for i in range(12, 21) for j in range(12, 21) if i != j) / (9 * 8)
    between = sum(kernel[i, j] for i in range(12) for j in range(12, 21)) / (12 * 9)
    assert mmd_test(x, y, rng).value == pytest.approx(within_x + within_y - 2 * between)


def test_mmd_p_values_are_never_zero_and_rarely_small_under_the_null() -> None:
    rng = np.random.default_rng(12)
    p_values = [mmd_test(rng.normal(size=(25, 3)), rng.normal(size=(20, 3)), rng).p_value for _ in range(150)]
    assert np.mean(np.array(p_values) <= 0.1) <= 0.1 + 3 * np.sqrt(0.09 / 150)
    assert mmd_test(np.zeros((20, 1)), np.ones((20, 1)), rng).p_value == 1 / (NUM_PERMUTATIONS + 1)
