"""The replay buffer: uniform, order-independent, mergeable, fair to slices."""

from __future__ import annotations

import random
from collections import Counter

import pyarrow as pa
import pytest
from scipy.stats import chisquare

from cl_steps.data.replay import select


def manifest(sizes: dict[str, int], salt: str = "") -> pa.Table:
    rows = [{"sha256": f"{salt}{name}{index}", "slice": name} for name, size in sizes.items() for index in range(size)]
    return pa.Table.from_pylist(rows, schema=pa.schema([("sha256", pa.string()), ("slice", pa.string())]))


def test_every_item_is_as_likely_as_any_other() -> None:
    table, seeds = manifest({"a": 20, "b": 20}), 600
    counts = Counter(name for seed in range(seeds) for name in select(table, 11, seed)["sha256"].to_pylist())
    for slice_name in "ab":
        observed = [counts[f"{slice_name}{index}"] for index in range(20)]
        # Inclusions of one draw exclude each other, so the statistic is deflated, never inflated.
        assert chisquare(observed).pvalue > 0.001
        assert sum(observed) / seeds == pytest.approx(5.5, abs=0.1)


def test_order_does_not_matter() -> None:
    rows = manifest({"a": 30, "b": 5, "c": 17}).to_pylist()
    expected = select(pa.Table.from_pylist(rows), 20, 1)
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        assert select(pa.Table.from_pylist(rows), 20, 1).equals(expected)


@pytest.mark.parametrize("capacity", [0, 1, 5, 7, 16, 40, 200])
@pytest.mark.parametrize("seed", range(8))
def test_selecting_from_a_selection_is_selecting_from_all(capacity: int, seed: int) -> None:
    rng = random.Random(seed)
    old = manifest({name: rng.randint(0, 25) for name in "abc"}, "old")
    new = manifest({name: rng.randint(0, 25) for name in "bcd"}, "new")
    direct = select(pa.concat_tables([old, new]), capacity, seed)
    stepwise = select(pa.concat_tables([select(old, capacity, seed), new]), capacity, seed)
    assert stepwise.equals(direct)


@pytest.mark.parametrize(
    ("sizes", "capacity", "kept"),
    [
        ({"a": 10, "b": 10}, 8, {"a": 4, "b": 4}),
        ({"a": 100, "b": 3}, 12, {"a": 9, "b": 3}),
        ({"a": 2, "b": 2}, 100, {"a": 2, "b": 2}),
        ({"a": 50, "b": 50, "c": 1}, 11, {"a": 5, "b": 5, "c": 1}),
        ({}, 5, {}),
    ],
)
def test_slices_share_the_capacity(sizes: dict[str, int], capacity: int, kept: dict[str, int]) -> None:
    assert Counter(select(manifest(sizes), capacity, 3)["slice"].to_pylist()) == kept
