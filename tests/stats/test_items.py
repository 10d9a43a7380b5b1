"""Items: round trip, and a bounded sample that depends on no order."""

from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import pytest

from cl_steps.errors import UsageError
from cl_steps.stats.captions import MAX_OTHERS, MIN_CAPTIONS, agreement, specificity
from cl_steps.stats.drift_evidence import SHARE_BY_CHANCE, Odd, SliceEvidence, matrices, misfits, nearest_of, outlandish
from cl_steps.stats.items import Items, bounded, joined, read_items, write_items
from cl_steps.stats.properties import DECIDING, PROPERTIES
from cl_steps.stats.two_sample import MIN_ITEMS


def make_items(count: int, seed: int, num_features: int = 3) -> Items:
    rng = np.random.default_rng(seed)
    names = tuple(f"{value:016x}" for value in rng.integers(0, 2**60, count))
    slices = tuple(str(rng.choice(["a", "b"])) for _ in names)
    agree = rng.normal(size=count).astype(np.float32)
    agree[: count // 4] = np.nan
    properties = rng.normal(30, 5, size=(count, len(PROPERTIES)))
    properties[:, PROPERTIES.index("noise")] = np.log1p(rng.uniform(1, 3, count))
    return Items(
        names, slices, rng.normal(size=(count, num_features)).astype(np.float32), agree, agree, properties
    ).sorted()


def same(first: Items, second: Items) -> bool:
    arrays = zip(
        (first.features, first.agreement, first.specificity, first.properties),
        (second.features, second.agreement, second.specificity, second.properties),
        strict=True,
    )
    names = (first.sha256, first.slices) == (second.sha256, second.slices)
    return names and all(np.array_equal(a, b, equal_nan=True) for a, b in arrays)


def test_items_come_back_as_they_were_and_give_the_same_bytes(tmp_path: Path) -> None:
    items = make_items(20, 0)
    write_items(tmp_path / "a", items, "digest")
    write_items(tmp_path / "b", items.take(list(reversed(range(20)))), "digest")
    assert same(read_items(tmp_path / "a", "digest", 3), items)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_items_come_back_too(tmp_path: Path) -> None:
    write_items(tmp_path / "a", make_items(20, 0).take([]), "digest")
    assert read_items(tmp_path / "a", "digest", 3).features.shape == (0, 3)


def test_features_of_another_extractor_are_refused(tmp_path: Path) -> None:
    write_items(tmp_path / "a", make_items(20, 0), "digest")
    with pytest.raises(UsageError, match="another feature extractor"):
        read_items(tmp_path / "a", "other", 3)


def test_the_bounded_union_is_the_same_in_any_order_and_in_steps() -> None:
    first, second, third = (make_items(40, seed) for seed in (1, 2, 3))
    at_once = bounded(joined(joined(third, first), second), 15, seed=7)
    stepwise = bounded(joined(bounded(joined(first, second), 15, seed=7), third), 15, seed=7)
    assert same(at_once, stepwise)
    assert [len(at_once.of_slice(name)) for name in ("a", "b")] == [15, 15]
    assert at_once.sha256 != bounded(joined(joined(third, first), second), 15, seed=8).sha256


def test_matrices_leave_few_features_alone_and_reduce_many_blindly() -> None:
    few, many = make_items(10, 4), make_items(60, 5, num_features=200)
    known, new = matrices(few.take(range(6)), few.take(range(6, 10)))
    assert np.allclose(np.concatenate([known, new])[:, :3], few.features)
    known, new = matrices(many.take(range(40)), many.take(range(40, 60)))
    swapped, _ = matrices(many.take(range(20)), many.take(range(20, 60)))
    assert known.shape == (40, 64 + len(DECIDING))
    assert np.allclose(known[:20], swapped)  # which set an item is in changes nothing


def test_specificity_is_one_for_the_best_caption_and_half_for_unrelated_ones() -> None:
    axes = np.eye(MIN_CAPTIONS, dtype=np.float32)
    captions = [f"caption {row}" for row in range(MIN_CAPTIONS)]
    assert specificity(axes, axes, captions, ["a"] * MIN_CAPTIONS) == pytest.approx(1)
    blank = np.full_like(axes, MIN_CAPTIONS**-0.5)
    assert specificity(blank, axes, captions, ["a"] * MIN_CAPTIONS) == pytest.approx(0.5)
    assert np.isnan(specificity(axes, axes, ["same"] * MIN_CAPTIONS, ["a"] * MIN_CAPTIONS)).all()
    assert agreement(axes, axes) == pytest.approx(1)


def test_specificity_is_what_its_definition_says() -> None:
    rng = np.random.default_rng(3)
    images, texts = (rng.normal(size=(40, 5)).astype(np.float32) for _ in range(2))
    captions = [f"caption {row % 17}" for row in range(40)]
    slices = ["a" if row % 17 < 9 else "b" for row in range(40)]
    texts = np.stack([texts[captions.index(caption)] for caption in captions])
    products = [float(image @ text) for image, text in zip(images, texts, strict=True)]
    assert agreement(images, texts) == pytest.approx(products, abs=1e-5)
    for row, found in enumerate(specificity(images, texts, captions, slices)):
        others = {captions[at]: at for at in range(40) if slices[at] == slices[row] and captions[at] != captions[row]}
        worse = [images[row] @ texts[at] < images[row] @ texts[row] for at in others.values()]
        assert found == pytest.approx(np.mean(worse))


def test_which_of_many_captions_are_compared_does_not_depend_on_their_order() -> None:
    rng = np.random.default_rng(4)
    images, texts = (rng.normal(size=(MAX_OTHERS + 50, 4)).astype(np.float32) for _ in range(2))
    captions, order = [f"caption {row}" for row in range(len(texts))], rng.permutation(len(texts))
    whole = specificity(images, texts, captions, ["a"] * len(texts))
    mixed = specificity(images[order], texts[order], [captions[at] for at in order], ["a"] * len(texts))
    assert mixed == pytest.approx(whole[order])


def test_noise_is_outlandish_and_known_noise_is_not() -> None:
    reference, new = make_items(200, 6), make_items(30, 7)
    assert outlandish(reference, new).share < 0.05
    noisy = new.properties.copy()
    noisy[:12, PROPERTIES.index("noise")] = np.log1p(70)
    found = outlandish(reference, Items(new.sha256, new.slices, new.features, new.agreement, new.specificity, noisy))
    assert found.share == pytest.approx(0.4, abs=0.04)
    far = round(found.share * 30)
    at_least = sum(comb(30, k) * SHARE_BY_CHANCE**k * (1 - SHARE_BY_CHANCE) ** (30 - k) for k in range(far, 31))
    assert found.p_value == pytest.approx(at_least, rel=1e-6, abs=0)
    assert outlandish(reference.take([]), new) is None


def test_a_part_of_wrong_captions_shows_as_misfits() -> None:
    rng = np.random.default_rng(8)
    known, new = (rng.normal(0.5, 0.1, count).astype(np.float32) for count in (200, 60))
    assert misfits(known, new).p_value > 0.01
    new[:20] -= 0.6
    assert misfits(known, new).share == pytest.approx(1 / 3, abs=0.05)
    assert misfits(known, new).p_value < 1e-9
    assert misfits(known, np.full(3, np.nan, np.float32)) is None


def test_the_p_value_of_misfits_is_that_of_all_arrangements() -> None:
    known, new = np.array([4, 1, 6, 7, 8, 9, 10, 11], np.float32), np.array([0, 0.5, 5], np.float32)
    pooled = np.sort(np.concatenate([known, new]))
    counts = []
    for chosen in combinations(range(11), 3):
        is_new = np.isin(np.arange(11), chosen)
        counts.append(int((pooled[is_new] < pooled[~is_new].min()).sum()))
    assert misfits(known, new).share == pytest.approx(2 / 3)
    assert misfits(known, new).p_value == pytest.approx(np.mean(np.array(counts) >= 2))


def test_a_picture_that_fits_as_well_as_the_limit_is_no_misfit() -> None:
    known = np.arange(100, dtype=np.float32)
    assert misfits(known, np.ones(10, np.float32)) == Odd(0.0, 1.0)
    assert misfits(known, np.full(10, 0.9, np.float32)).share == 1


def test_flat_pictures_are_not_outlandish_where_all_are_flat() -> None:
    flat = make_items(60, 9)
    flat.properties[:] = 0.0
    assert outlandish(flat, flat) == Odd(0.0, 1.0)


def test_the_nearest_slice_is_a_known_one_that_is_large_enough() -> None:
    reference, seed = make_items(120, 10), np.random.SeedSequence(0)
    of_a, of_b = reference.of_slice("a"), reference.of_slice("b")
    of_b.properties[:] += 50
    new = of_b.take(range(20))
    assert nearest_of(joined(of_a, of_b.take(range(20, len(of_b)))), new, seed).name == "b"
    assert nearest_of(joined(of_a, of_b.take(range(20, 19 + MIN_ITEMS))), new, seed).name == "a"
    assert nearest_of(reference, new.take(range(MIN_ITEMS - 1)), seed) is None


def test_pictures_without_contrast_are_outlandish() -> None:
    reference, new = make_items(200, 6), make_items(30, 7)
    grey = new.properties.copy()
    grey[:, PROPERTIES.index("contrast")] = 0.0
    found = outlandish(reference, Items(new.sha256, new.slices, new.features, new.agreement, new.specificity, grey))
    assert found.share == 1
    assert found.p_value < 1e-8


def test_a_slice_is_new_below_the_least_number_of_items() -> None:
    assert [SliceEvidence("a", number, 9, 9).is_new for number in (MIN_ITEMS - 1, MIN_ITEMS)] == [True, False]
