"""Splits: shares, stability, every slice examined."""

from __future__ import annotations

import hashlib

import pytest
from scipy.stats import binomtest

from cl_steps.config import Ingest
from cl_steps.data.splits import assign, is_sealed, split_of, uniform

PARAMS = Ingest()


def names(count: int, salt: str = "") -> list[str]:
    return [hashlib.sha256(f"{salt}{index}".encode()).hexdigest() for index in range(count)]


def test_shares_are_those_of_the_parameters() -> None:
    splits = [split_of(name, PARAMS, 0) for name in names(5000)]
    for split, share in (("evaluation", 0.3), ("probe", 0.1), ("train", 0.6)):
        assert binomtest(splits.count(split), 5000, share).pvalue > 0.001  # type: ignore[arg-type]
    assert binomtest(sum(is_sealed(name, PARAMS, 0) for name in names(5000)), 5000, 0.1).pvalue > 0.001


def test_hashes_are_uniform_and_depend_on_seed_and_purpose() -> None:
    values = [uniform(0, "split", name) for name in names(2000)]
    tenths = [sum(low <= 10 * value < low + 1 for value in values) for low in range(10)]
    assert all(binomtest(count, 2000, 0.1).pvalue > 0.001 for count in tenths)
    assert uniform(0, "split", "a") != uniform(1, "split", "a") != uniform(1, "sealed", "a")


def test_a_split_does_not_depend_on_what_else_arrives() -> None:
    group = names(200)
    alone = {name: assign({name: {"ink"}}, [], PARAMS, 3)[name] for name in group}
    together = assign({name: {"ink"} for name in group} | {n: {"neon"} for n in names(5, "x")}, [], PARAMS, 3)
    assert {name: together[name] for name in group} == alone


@pytest.mark.parametrize("seed", range(60))
def test_ten_groups_have_every_split(seed: int) -> None:
    splits = assign({name: {"ink"} for name in names(10, str(seed))}, [], PARAMS, seed)
    assert set(splits.values()) == {"train", "probe", "evaluation"}
    examined = [name for name, split in splits.items() if split == "evaluation" and not is_sealed(name, PARAMS, seed)]
    assert examined
    moved = sum(split != split_of(name, PARAMS, seed) for name, split in splits.items())
    assert moved <= 2


def test_fewer_groups_are_left_to_their_hash() -> None:
    for seed in range(20):
        splits = assign({name: {"ink"} for name in names(9)}, [], PARAMS, seed)
        assert splits == {name: split_of(name, PARAMS, seed) for name in names(9)}


def test_known_groups_count_and_never_force_twice() -> None:
    known = [(name, "ink", "train") for name in names(9, "learnt")]
    open_names = [name for name in names(100) if not is_sealed(name, PARAMS, 0)]
    newcomer = next(name for name in open_names if split_of(name, PARAMS, 0) == "train")
    assert assign({newcomer: {"ink"}}, known, PARAMS, 0) == {newcomer: "evaluation"}
    examined = next(name for name in names(100, "known") if not is_sealed(name, PARAMS, 0))
    known = [(examined, "ink", "evaluation"), ("p", "ink", "probe"), *known[-8:]]
    assert len({group for group, _, _ in known}) == 10
    assert assign({newcomer: {"ink"}}, known, PARAMS, 0) == {newcomer: "train"}


def test_groups_across_slices_are_not_moved() -> None:
    groups = {name: {"ink", "neon"} for name in names(12)}
    assert assign(groups, [], PARAMS, 1) == {name: split_of(name, PARAMS, 1) for name in groups}


def test_sealed_groups_alone_do_not_examine_a_slice() -> None:
    sealed = [name for name in names(200) if is_sealed(name, PARAMS, 0)]
    known = [(sealed[0], "ink", "evaluation"), *((name, "ink", "train") for name in names(9, "known"))]
    newcomer = next(name for name in names(100, "new") if not is_sealed(name, PARAMS, 0))
    assert assign({newcomer: {"ink"}}, known, PARAMS, 0) == {newcomer: "evaluation"}
