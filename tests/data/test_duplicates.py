"""Near-duplicates: real digits told apart, copies recognised, blocks equal to brute force."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from cl_steps.config import Ingest
from cl_steps.data import duplicates
from cl_steps.data.duplicates import Prints, components, near_any, near_pairs, prints_of
from cl_steps.data.images import detail, dhash, thumbnail
from tests.data.landings import encoded

RMSE = Ingest().near_duplicate_rmse
Copy = Callable[[Image.Image], Image.Image]


def prints(images: list[Image.Image]) -> Prints:
    return prints_of(map(dhash, images), map(thumbnail, images), map(detail, images))


@cache
def digits(paper: tuple[int, int, int] = (0, 0, 0), ink: tuple[int, int, int] = (255, 255, 255)) -> list[Image.Image]:
    """All of `load_digits` drawn at 32x32."""
    scaled = load_digits().images[..., None] / 16
    colours = np.rint(np.array(paper) * (1 - scaled) + np.array(ink) * scaled).astype(np.uint8)
    return [Image.fromarray(digit).resize((32, 32), Image.Resampling.BICUBIC) for digit in colours]


def jpeg(image: Image.Image, quality: int = 85) -> Image.Image:
    return Image.open(io.BytesIO(encoded(image, "JPEG", quality=quality))).convert("RGB")


def resized(factor: float, how: Image.Resampling = Image.Resampling.LANCZOS) -> Copy:
    return lambda image: image.resize((round(image.width * factor), round(image.height * factor)), how)


def pairs(new: Prints, others: Prints, rmse: float = RMSE) -> set[tuple[int, int]]:
    found = [(rows, columns) for rows, columns in near_pairs(new, others, rmse)]
    return {(int(i), int(j)) for rows, columns in found for i, j in zip(rows, columns, strict=True)}


STYLES = {
    "white on black": ((0, 0, 0), (255, 255, 255)),
    "black on white": ((255, 255, 255), (0, 0, 0)),
    "blue on paper": ((222, 237, 252), (20, 56, 204)),
    "neon on night": ((18, 8, 41), (13, 242, 242)),
    "grey on grey": ((150, 150, 150), (110, 110, 110)),
}


@pytest.mark.parametrize(("paper", "ink"), STYLES.values(), ids=STYLES.keys())
def test_no_two_digits_are_near_duplicates(paper: tuple[int, int, int], ink: tuple[int, int, int]) -> None:
    """1,797 digits, about 180 of each class; dHash alone at 2 bits calls most of them duplicates."""
    all_digits = prints(digits(paper, ink))
    found = {pair for pair in pairs(all_digits, all_digits) if pair[0] < pair[1]}
    assert len(found) <= (1 if paper == (150, 150, 150) else 0)


COPIES: dict[str, Copy] = {
    "jpeg q85": jpeg,
    "jpeg q70": lambda image: jpeg(image, 70),
    "x1.5": resized(1.5),
    "x1.5 bilinear": resized(1.5, Image.Resampling.BILINEAR),
    "x0.75": resized(0.75),
    "x0.75 bicubic": resized(0.75, Image.Resampling.BICUBIC),
    "x2, then jpeg": lambda image: jpeg(resized(2)(image)),
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES.keys())
@pytest.mark.parametrize("style", list(STYLES))
def test_copies_are_near_duplicates(style: str, copy: Copy) -> None:
    originals = digits(*STYLES[style])[:60]
    found = pairs(prints([copy(image) for image in originals]), prints(originals))
    assert found == {(i, i) for i in range(60)}


def random_prints(count: int, seed: int, brightness: float) -> Prints:
    """Thumbnails around a few centres, so that some are near, with dHashes a few bits apart."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).integers(0, 200, (6, 192))
    noisy = centres[rng.integers(0, 6, count)] + rng.normal(0, brightness, (count, 192))
    thumbs = noisy.clip(0, 255).astype(np.uint8)
    bits = rng.integers(0, 2, (count, 64), dtype=np.uint8) * (rng.random((count, 64)) < 0.2)
    return prints_of((np.packbits(row).tobytes() for row in bits), (row.tobytes() for row in thumbs))


def brute(new: Prints, others: Prints, rmse: float) -> set[tuple[int, int]]:
    found = set()
    for i in range(len(new)):
        for j in range(len(others)):
            squares = (new.features[i].astype(float) - others.features[j]) ** 2
            distance = np.sqrt(squares.sum() / (64 * 1.125))
            allowed = min(rmse, 1 + 0.05 * min(new.spread[i], others.spread[j]))
            if distance <= allowed and int(new.dhash[i] ^ others.dhash[j]).bit_count() <= 14:
                found.add((i, j))
    return found


@pytest.mark.parametrize(("rmse", "noise"), [(3.0, 2.0), (3.0, 3.0), (10.0, 6.0), (0.5, 0.1)])
def test_blocks_give_what_brute_force_gives(monkeypatch: pytest.MonkeyPatch, rmse: float, noise: float) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    new, others = random_prints(40, 1, noise), random_prints(90, 2, noise)
    expected = brute(new, others, rmse)
    assert pairs(new, others, rmse) == expected
    assert np.flatnonzero(near_any(new, others, rmse)).tolist() == sorted({i for i, _ in expected})


def naive_components(new: Prints, known: Prints, groups: list[int], rmse: float) -> list[int]:
    """Labels by walking from picture to picture."""
    both = duplicates.joined(new, known)
    edges = brute(new, both, rmse)
    first = {group: groups.index(group) for group in groups}
    edges |= {(len(new) + first[group], len(new) + index) for index, group in enumerate(groups)}
    labels = list(range(len(both)))
    for _ in labels:
        for i, j in edges:
            labels[i] = labels[j] = min(labels[i], labels[j])
    return labels


@pytest.mark.parametrize("max_edges", [0, 10**6])
def test_components_are_those_of_a_walk(monkeypatch: pytest.MonkeyPatch, max_edges: int) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", 5)
    monkeypatch.setattr(duplicates, "MAX_EDGES", max_edges)
    new, known = random_prints(25, 3, 2.0), random_prints(30, 4, 2.0)
    groups = np.random.default_rng(0).integers(0, 15, 30)
    labels = components(new, known, groups, 3.0)
    expected = naive_components(new, known, groups.tolist(), 3.0)
    assert partition(labels) == partition(np.array(expected))
    assert 1 < len(set(expected)) < 55


def partition(labels: NDArray[np.int64]) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in labels}


def test_nothing_new_or_nothing_known() -> None:
    none, some = prints_of([], []), random_prints(4, 1, 1.0)
    nobody = np.zeros(0, dtype=np.int64)
    assert components(none, none, nobody, RMSE).shape == (0,)
    assert components(none, some, np.arange(4), RMSE).shape == (4,)
    assert components(some, none, nobody, RMSE).shape == (4,)
    assert not near_any(some, none, RMSE).any()


def test_float32_is_exact() -> None:
    """Every partial sum of a product is a multiple of 1/2 below 2^23, which float32 holds exactly."""
    corners = [bytes(colour * 64) for colour in itertools.product((0, 255), repeat=3)]
    rng = np.random.default_rng(0)
    extremes = prints_of(
        [bytes(8)] * 40, corners + [rng.choice(np.array([0, 255], np.uint8), 192).tobytes() for _ in range(32)]
    )
    assert extremes.norms.max() < 2**23 - extremes.norms.max() / 2
    score = duplicates._augmented(extremes, own=True) @ duplicates._augmented(extremes, own=False).T
    wide = extremes.features.astype(np.float64)
    assert np.array_equal(-2 * score, ((wide[:, None] - wide[None]) ** 2).sum(axis=2))


def face(eyes: str, mouth: str) -> Image.Image:
    """As designers of emoji draw them: one yellow face, told apart by a few strokes."""
    image = Image.new("RGB", (512, 512), "white")
    draw, ink = ImageDraw.Draw(image), (102, 69, 0)
    draw.ellipse((16, 16, 496, 496), fill=(255, 204, 77))
    for middle in (168, 344):
        around = (middle - 32, 168, middle + 32, 232)
        if eyes == "round":
            draw.ellipse(around, fill=ink)
        else:
            low, high = (200, 200) if eyes == "flat" else (184, 216)
            draw.line((middle - 40, low, middle + 40, high), fill=ink, width=10)
    if mouth == "open":
        draw.chord((150, 240, 362, 432), 0, 180, fill=ink)
    elif mouth == "flat":
        draw.line((170, 344, 342, 344), fill=ink, width=6)
    else:
        draw.arc((150, 240, 362, 400), *((20, 160) if mouth == "glad" else (200, 340)), fill=ink, width=6)
    return image.resize((128, 128), Image.Resampling.LANCZOS)


FACES = [face(eyes, mouth) for eyes in ("round", "slanted", "flat") for mouth in ("open", "flat", "glad", "sad")]


def test_faces_that_differ_in_a_few_strokes_are_distinct() -> None:
    own = prints(FACES)
    assert pairs(own, own) == {(n, n) for n in range(len(FACES))}
    blurred = prints_of(map(dhash, FACES), map(thumbnail, FACES))
    assert len(pairs(blurred, blurred)) > len(FACES), "without finer cells some are the same"


@pytest.mark.parametrize("copy", [jpeg, resized(0.75), resized(2), lambda image: jpeg(resized(0.5)(image), 70)])
def test_copies_of_faces_are_recognised(copy: Copy) -> None:
    assert {(n, n) for n in range(len(FACES))} <= pairs(prints(list(map(copy, FACES))), prints(FACES))


def test_pictures_without_finer_cells_are_compared_by_the_others() -> None:
    own, blurred = prints(FACES), prints_of(map(dhash, FACES), map(thumbnail, FACES))
    assert pairs(own, blurred) == pairs(blurred, own) == pairs(blurred, blurred)
    assert len(set(components(own, blurred, np.arange(len(blurred)), RMSE).tolist())) < 2 * len(FACES)
