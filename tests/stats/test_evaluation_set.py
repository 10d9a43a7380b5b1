"""What is measured: stable under order and growth, sealed rows out, units when prompts are few; fidelity's scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cl_steps.stats.evaluation_set import FEW_PROMPTS, choose, derived_seed, draws, seed_plan
from cl_steps.stats.fidelity import CaptionScale


def rows(count: int, prompts: int, slice_name: str = "a") -> list[dict[str, Any]]:
    return [
        {
            "sha256": f"{slice_name}{number:04d}",
            "text": f"prompt {number % prompts}",
            "slice": slice_name,
            "split": "evaluation",
            "sealed": False,
        }
        for number in range(count)
    ]


PLAN = seed_plan(0, 1)


def test_the_choice_does_not_depend_on_order_or_on_other_slices() -> None:
    some = rows(50, 50)
    one = choose(some, PLAN, 20)["a"]
    mixed = choose([*rows(9, 9, "b"), *some[::-1]], PLAN, 20)
    assert one == mixed["a"]
    assert list(mixed) == ["a", "b"]
    assert len(one.rows) == 20


def test_sealed_and_training_rows_are_not_chosen() -> None:
    some = rows(5, 5)
    some[0]["sealed"], some[1]["split"] = True, "train"
    assert [row["sha256"] for row in choose(some, PLAN, 20)["a"].rows] == ["a0002", "a0003", "a0004"]


def test_the_unit_is_the_prompt_and_looks_are_nested() -> None:
    group = choose(rows(60, 30), PLAN, 100)["a"]
    first, second = draws(group, PLAN, 20), draws(group, PLAN, 50)
    assert len(first) == len({draw.unit for draw in first}) == 20
    assert len({draw.unit for draw in second}) == 30
    assert len(second) == 60
    assert set(first) <= set(second)
    assert len({draw.seed for draw in second}) == 60


def test_few_prompts_make_each_draw_a_unit() -> None:
    group = choose(rows(60, FEW_PROMPTS - 1), PLAN, 100)["a"]
    units = [draw.unit for draw in draws(group, PLAN, 48)]
    assert len(units) == len(set(units)) >= 48
    assert {draw.number for draw in draws(group, PLAN, 48)} == {0}
    enough = choose(rows(60, FEW_PROMPTS), PLAN, 100)["a"]
    assert len({draw.unit for draw in draws(enough, PLAN, 48)}) == FEW_PROMPTS


def test_nothing_to_draw() -> None:
    assert choose([], PLAN, 5) == {}


def test_seeds_differ_by_plan_and_thing() -> None:
    seeds = {
        derived_seed(seed_plan(*plan), *thing) for plan in ((0, 1), (0, 2), (1, 1)) for thing in (("a", "b"), ("ab",))
    }
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_fidelity_is_one_for_held_out_images_and_blind_to_wordings() -> None:
    """Captions in two wordings that mean the same, features with noise: 1 for the images, 0 for shuffled ones."""
    rng = np.random.default_rng(0)
    concepts = rng.normal(size=(6, 32))
    which = np.arange(60) % 6
    captions = {"a": np.repeat(concepts, 2, axis=0)[2 * which + np.arange(60) % 2], "b": rng.normal(size=(40, 32))}
    images = {"a": concepts[which] + 0.5 * rng.normal(size=(60, 32)), "b": rng.normal(size=(40, 32))}
    scale = CaptionScale.of(images, captions)
    assert set(scale.scales) == {"a"}  # the images of b have nothing to do with their captions
    faint = {name: features / 100 for name, features in images.items()}
    assert set(CaptionScale.of(faint, captions).scales) == {"a"}
    right = scale.fidelity("a", images["a"], captions["a"])
    assert right.mean() == pytest.approx(1)
    other = scale.fidelity("a", images["a"], captions["a"][np.argsort(which, kind="stable")[::-1]])
    assert abs(other.mean()) < 0.5 < right.mean()
