"""Alpha spending and Holm's correction."""

import numpy as np
import pytest
from scipy import stats

from cl_steps.stats.sequential import holm, spent_at


def test_all_looks_together_spend_the_level() -> None:
    assert sum(spent_at(look, 0.05) for look in range(1, 200_000)) == pytest.approx(0.05, rel=1e-4)
    assert spent_at(1, 0.05) == pytest.approx(0.0304, abs=1e-4)


def test_thirty_looks_at_a_growing_batch_keep_the_overall_error() -> None:
    level, sequences, looks = 0.1, 4000, np.arange(1, 31)
    sums = np.random.default_rng(0).normal(size=(sequences, 30)).cumsum(axis=1)
    p_values = stats.norm.sf(sums / np.sqrt(looks))  # a one-sided test of all that came so far, at every look
    spent = np.array([spent_at(look, level) for look in looks])
    fired_spending, fired_plain = (np.mean((p_values <= limit).any(axis=1)) for limit in (spent, level))
    assert fired_spending <= level + 2 * np.sqrt(level * (1 - level) / sequences)
    assert fired_plain > 3 * level  # what the spending is for


def test_holm_is_the_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_holm_keeps_the_familys_error() -> None:
    rng = np.random.default_rng(1)
    p_values = rng.random((4000, 5))
    assert np.mean([min(holm(list(row))) <= 0.05 for row in p_values]) <= 0.06
