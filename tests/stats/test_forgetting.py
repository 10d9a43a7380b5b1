"""Forgetting against its published definitions, worked out by hand."""

from __future__ import annotations

from cl_steps.stats.forgetting import summarise

SCORES = {
    "v1": {"a": 0.9},
    "v2": {"a": 0.95, "b": 0.8},
    "v3": {"a": 0.7, "b": 0.85, "c": 0.6},
}


def test_backward_transfer_and_forgetting() -> None:
    summary = summarise(SCORES)
    assert summary.backward_transfer is not None
    assert summary.forgetting is not None
    assert abs(summary.backward_transfer - ((0.7 - 0.9) + (0.85 - 0.8)) / 2) < 1e-12
    assert abs(summary.forgetting - ((0.95 - 0.7) + (0.8 - 0.85)) / 2) < 1e-12
    assert set(summary.by_slice) == {"a", "b"}


def test_nothing_old_means_nothing_to_say() -> None:
    assert summarise({"v1": {"a": 1.0}}).forgetting is None
    assert summarise({}).backward_transfer is None
