"""Makes what lands in the demonstration's landing folder: the first pictures, and four nights.

A folder is an `imagefolder`: PNG pictures and `metadata.jsonl`. Only `HELD_OUT` strokes are used. Every style goes
through them in an order of its own, and each occasion has its own stretch of that order, so that within a style no
stroke is drawn twice, whatever is written first.

    first pictures   150 in each base style
    night 1           40 more in each base style: nothing new
    night 2          300 in neon ink: a new style
    night 3          300 in white chalk: another
    night 4           40 of noise, 60 with wrong captions, and broken files (`broken.py`)
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cl_steps.demo.broken import write_broken
from cl_steps.demo.drawing import (
    BASE_STYLES,
    HELD_OUT,
    SIDE,
    STYLES,
    TEMPLATES,
    Integers,
    caption,
    digits_of,
    draw,
)

NUM_NOISE, NUM_WRONG, NUM_SOUND = 40, 60, 5
# Stretches of a style's order of strokes; those of one style do not overlap.
FIRST, KNOWN, NEW = range(150), range(150, 190), range(300)
POISON_START = 400
NEW_STYLES: Mapping[int, str] = {2: "neon-ink", 3: "white-chalk"}
SHARE_WRONG_STYLE = 0.6
AGE_SECONDS = 3600
FACTS = {"source": "scikit-learn load_digits (UCI), drawn by Retain's demo", "licence": "CC-BY-4.0", "consent": "given"}

Line = dict[str, Any]
Picture = NDArray[np.uint8]


def write_initial(folder: Path, seed: int) -> None:
    """Writes 150 pictures in each of the base styles."""
    rng = np.random.default_rng([seed, 0])
    lines = [line for style in BASE_STYLES for line in _drawings(folder, style, FIRST, seed, rng)]
    _write_lines(folder, lines)


def write_night(folder: Path, night: int, seed: int) -> None:
    """Writes what arrives in night 1, 2, 3 or 4; raises ValueError for another."""
    if night not in (1, 2, 3, 4):
        raise ValueError(f"there is no night {night}: the demonstration has nights 1 to 4")
    rng = np.random.default_rng([seed, night])
    if night == 1:
        lines = [line for style in BASE_STYLES for line in _drawings(folder, style, KNOWN, seed, rng)]
    elif night in NEW_STYLES:
        lines = _drawings(folder, NEW_STYLES[night], NEW, seed, rng)
    else:
        lines = _poison(folder, seed, rng)
    _write_lines(folder, lines)
    for path in folder.iterdir():  # they came in the evening: none is still on its way
        os.utime(path, (path.stat().st_mtime - AGE_SECONDS,) * 2)


def order_of(style: str, seed: int) -> Integers:
    """The order in which a style goes through the held-out strokes, as their indices (1000,)."""
    return np.random.default_rng([seed, 100 + list(STYLES).index(style)]).permutation(HELD_OUT)


def _drawings(folder: Path, style: str, places: range, seed: int, rng: np.random.Generator) -> list[Line]:
    """Draws one stretch of a style's strokes under true captions."""
    order = order_of(style, seed)
    lines = []
    for place in places:
        name, index = f"{style}-{place:04d}.png", int(order[place])
        _save(folder / name, draw(index, style, rng))
        lines.append(_line(name, _caption_of(index, style, rng), style))
    return lines


def _poison(folder: Path, seed: int, rng: np.random.Generator) -> list[Line]:
    """Noise under ordinary captions, drawings under wrong ones, and broken files, all claiming the base styles."""
    claimed = [BASE_STYLES[place % len(BASE_STYLES)] for place in range(NUM_NOISE + NUM_WRONG)]
    lines = _noise(folder, claimed[:NUM_NOISE], rng)
    lines += _wrong(folder, claimed[NUM_NOISE:], seed, rng)
    spare = order_of(BASE_STYLES[0], seed)[POISON_START + NUM_WRONG :][:NUM_SOUND]
    sound = [draw(int(index), BASE_STYLES[0], rng) for index in spare]
    facts = _line("", _caption_of(int(spare[0]), BASE_STYLES[0], rng), BASE_STYLES[0])
    return lines + write_broken(folder, sound, facts)


def _noise(folder: Path, claimed: Sequence[str], rng: np.random.Generator) -> list[Line]:
    """Pictures of pure noise, with captions that would suit a drawing."""
    lines = []
    for place, style in enumerate(claimed):
        name = f"noise-{place:04d}.png"
        _save(folder / name, rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
        lines.append(_line(name, _caption_of(int(rng.choice(HELD_OUT)), style, rng), style))
    return lines


def _wrong(folder: Path, claimed: Sequence[str], seed: int, rng: np.random.Generator) -> list[Line]:
    """Drawings captioned with another digit, more than half of them drawn in another style as well."""
    lines = []
    for place, style in enumerate(claimed):
        others = [other for other in STYLES if other != style]
        drawn = str(rng.choice(others)) if rng.random() < SHARE_WRONG_STYLE else style
        index = int(order_of(drawn, seed)[POISON_START + place])
        digit = (int(digits_of(np.array([index]))[0]) + int(rng.integers(1, 10))) % 10
        name = f"wrong-{place:04d}.png"
        _save(folder / name, draw(index, drawn, rng))
        lines.append(_line(name, caption(digit, style, int(rng.integers(len(TEMPLATES)))), style))
    return lines


def _caption_of(index: int, style: str, rng: np.random.Generator) -> str:
    """The true caption of a stroke in a style, in a wording drawn anew."""
    digit = int(digits_of(np.array([index]))[0])
    return caption(digit, style, int(rng.integers(len(TEMPLATES))))


def _line(name: str, text: str, style: str) -> Line:
    return {"file_name": name, "text": text, "slice": style, **FACTS}


def _save(path: Path, picture: Picture) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def _write_lines(folder: Path, lines: Sequence[Line]) -> None:
    """Writes `metadata.jsonl`, one object a line."""
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
