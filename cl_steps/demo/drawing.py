"""Handwritten digits drawn as 32x32 colour pictures in five styles of ink and paper.

The strokes are scikit-learn's `load_digits` (8x8, CC BY 4.0), enlarged. The 1,797 digits are split once and for all:
`TRAIN` makes the base model and the feature extractor, `HELD_OUT` makes the pictures that arrive night after night.

Shapes: N pictures, C = 3 colour channels in 0..1, 32x32 pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.datasets import load_digits

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Colour = tuple[float, float, float]

SIDE = 32
NUM_DIGITS = 1797
NUM_TRAIN = 797
SPLIT_SEED = 1797

_ORDER = np.random.default_rng(SPLIT_SEED).permutation(NUM_DIGITS)
TRAIN: Integers = np.sort(_ORDER[:NUM_TRAIN])
HELD_OUT: Integers = np.sort(_ORDER[NUM_TRAIN:])

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = (
    "a handwritten {digit} in {style}",
    "the digit {digit} drawn in {style}",
    "a {style} drawing of the number {digit}",
    "{digit} written with {style}",
    "a picture of the number {digit} in {style}",
    "{style} writing of the digit {digit}",
    "the numeral {digit} painted with {style}",
    "a {style} {digit}",
)
PLAIN_TEMPLATES = ("a handwritten {digit}", "the digit {digit}", "a drawing of the number {digit}")


@dataclass(frozen=True)
class Look:
    """How a style looks: its words in a caption, its paper, its inks, and how far the ink glows (0 to 1)."""

    words: str
    paper: Colour
    inks: tuple[Colour, ...]
    glow: float = 0.0


LOOKS: Mapping[str, Look] = {
    "black-ink": Look("black ink", (0.97, 0.97, 0.97), ((0.06, 0.06, 0.06),)),
    "sepia-ink": Look("sepia ink", (0.93, 0.82, 0.62), ((0.45, 0.20, 0.05),)),
    "blue-ink": Look("blue ink", (0.87, 0.93, 0.99), ((0.08, 0.22, 0.80),)),
    "neon-ink": Look("neon ink", (0.07, 0.03, 0.16), ((0.05, 0.95, 0.95), (1.0, 0.15, 0.8), (0.4, 1.0, 0.15)), 0.4),
    "white-chalk": Look("white chalk", (0.10, 0.34, 0.22), ((0.95, 0.95, 0.88),)),
}
PRACTICE_LOOKS: Mapping[str, Look] = {
    "red-crayon": Look("red crayon", (0.98, 0.94, 0.86), ((0.85, 0.10, 0.10),)),
    "green-pencil": Look("green pencil", (0.96, 0.98, 0.90), ((0.10, 0.50, 0.20),)),
    "silver-paint": Look("silver paint", (0.12, 0.12, 0.16), ((0.75, 0.77, 0.80),)),
    "gold-paint": Look("gold paint", (0.30, 0.05, 0.10), ((0.90, 0.72, 0.25),)),
    "violet-pastel": Look("violet pastel", (0.90, 0.86, 0.80), ((0.55, 0.25, 0.75),)),
}
"""Looks that only the base is shown: who has read few names of styles takes a new one for one of those."""
STYLES: Mapping[str, str] = {name: look.words for name, look in LOOKS.items()}
BASE_STYLES = ("black-ink", "sepia-ink", "blue-ink")


@dataclass(frozen=True)
class Colours:
    """Colours of N pictures: `paper` and `ink` (N, 3) in 0..1, `glow` (N,) in 0..1."""

    paper: Floats
    ink: Floats
    glow: Floats


def caption(digit: int, style: str, template: int = 0) -> str:
    """The caption of a digit in a style, in one of the wordings of `TEMPLATES`."""
    look = LOOKS.get(style) or PRACTICE_LOOKS[style]
    return TEMPLATES[template].format(digit=DIGIT_WORDS[digit], style=look.words)


def plain_caption(digit: int, template: int = 0) -> str:
    """The caption of a digit that says nothing about its style."""
    return PLAIN_TEMPLATES[template].format(digit=DIGIT_WORDS[digit])


@cache
def _enlarged() -> tuple[Floats, Integers]:
    """All strokes, enlarged to (1797, 32, 32) in 0..1, and their digits (1797,)."""
    source = load_digits()
    large = [ndimage.zoom(image / 16.0, 4, order=3, mode="nearest", grid_mode=True) for image in source.images]
    return np.stack(large).clip(0, 1).astype(np.float32), source.target.astype(np.int64)


def digits_of(indices: Integers) -> Integers:
    """The digit (0 to 9) of each of the N strokes."""
    return _enlarged()[1][indices]


def wobble(stroke: Floats, rng: np.random.Generator) -> Floats:
    """A slightly turned, scaled, sheared and shifted copy of a (32, 32) stroke."""
    angle, scale = np.deg2rad(rng.uniform(-9, 9)), rng.uniform(0.92, 1.08)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1.0, rng.uniform(-0.1, 0.1)], [0.0, 1.0]]) / scale
    centre = np.full(2, (SIDE - 1) / 2)
    offset = centre - matrix @ centre + rng.uniform(-1.5, 1.5, 2)
    moved: Floats = ndimage.affine_transform(stroke, matrix, offset, order=1)
    return moved


def strokes_of(indices: Integers, rng: np.random.Generator) -> Floats:
    """Wobbled strokes (N, 32, 32) in 0..1 with soft edges; every call draws anew."""
    moved = np.stack([wobble(_enlarged()[0][index], rng) for index in indices])
    low = rng.uniform(0.14, 0.22, (len(moved), 1, 1))
    high = rng.uniform(0.66, 0.78, (len(moved), 1, 1))
    ramp = np.clip((moved - low) / (high - low), 0, 1)
    soft: Floats = (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)
    return soft


def colours_of(styles: Sequence[str], rng: np.random.Generator) -> Colours:
    """The colours of N pictures in the named styles, each a little off."""
    looks = [LOOKS.get(style) or PRACTICE_LOOKS[style] for style in styles]
    paper = np.array([look.paper for look in looks]) + rng.normal(0, 0.012, (len(looks), 3))
    ink = np.array([look.inks[rng.integers(len(look.inks))] for look in looks]) + rng.normal(0, 0.02, (len(looks), 3))
    glow = np.array([look.glow for look in looks])
    return Colours(paper.astype(np.float32), ink.astype(np.float32), glow.astype(np.float32))


def random_colours(count: int, rng: np.random.Generator) -> Colours:
    """Any ink on any paper, as long as one can tell them apart; some inks glow."""
    paper = rng.uniform(0, 1, (count, 3))
    ink = rng.uniform(0, 1, (count, 3))
    faint = np.abs(paper - ink).max(axis=1) < 0.4
    ink[faint] = (paper[faint] + 0.5) % 1.0
    vivid = rng.random(count) < 0.4
    ink[vivid] = np.where(paper[vivid] > 0.5, 0.05, 0.95)
    glow = np.where(rng.random(count) < 0.3, rng.uniform(0.2, 0.6, count), 0)
    return Colours(paper.astype(np.float32), ink.astype(np.float32), glow.astype(np.float32))


def paint(strokes: Floats, colours: Colours) -> Floats:
    """Pictures (N, 32, 32, 3) in 0..1 from strokes (N, 32, 32) and N colours."""
    cover = strokes[..., None]
    halo = ndimage.gaussian_filter(strokes, (0, 1.6, 1.6))[..., None] * colours.glow[:, None, None, None] * (1 - cover)
    amount = np.clip(cover + halo, 0, 1)
    painted = colours.paper[:, None, None] * (1 - amount) + colours.ink[:, None, None] * amount
    clipped: Floats = painted.clip(0, 1).astype(np.float32)
    return clipped


def draw(index: int, style: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One picture (32, 32, 3) of one stroke in one style."""
    picture = paint(strokes_of(np.array([index]), rng), colours_of([style], rng))[0]
    whole: NDArray[np.uint8] = np.rint(picture * 255).astype(np.uint8)
    return whole
