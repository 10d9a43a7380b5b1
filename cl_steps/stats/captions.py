"""Does an image fit its caption: by how much (agreement), and better than other captions (specificity).

The cosine of an image and its caption depends on the style: a model that has seen little neon gives all neon pictures
low cosines. Whether an image fits its own caption better than its neighbours' does not, so that a new style is not
taken for wrong captions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]

MAX_OTHERS = 256
MIN_CAPTIONS = 8
"""With fewer distinct captions than this, nothing can be said of how well they are told apart."""


def agreement(images: Features, texts: Features) -> Features:
    """(N,) cosines of unit vectors (N, d) and (N, d)."""
    cosines: Features = (images * texts).sum(axis=1, dtype=np.float32)
    return cosines


def specificity(images: Features, texts: Features, captions: Sequence[str], slices: Sequence[str]) -> Features:
    """(N,) shares of the other captions of its slice that an image fits worse than its own, ties a half; 0 to 1.

    0.5 is what an image gives that has nothing to do with its caption; NaN in slices with few distinct captions.
    """
    result = np.full(len(captions), np.nan, dtype=np.float32)
    for name in sorted(set(slices)):
        places = np.array([at for at, own in enumerate(slices) if own == name])
        result[places] = _within(images[places], texts[places], [captions[at] for at in places])
    return result


def _within(images: Features, texts: Features, captions: Sequence[str]) -> Features:
    first: dict[str, int] = {}
    for at, caption in enumerate(captions):
        first.setdefault(caption, at)
    chosen = sorted(first, key=lambda text: hashlib.sha256(text.encode()).digest())[:MAX_OTHERS]
    if len(chosen) < MIN_CAPTIONS:
        return np.full(len(captions), np.nan, dtype=np.float32)
    own = agreement(images, texts)[:, None]
    others = images @ texts[[first[text] for text in chosen]].T
    is_other = np.array([[text != caption for text in chosen] for caption in captions])
    beaten = ((others < own) + 0.5 * (others == own)) * is_other
    share: Features = (beaten.sum(axis=1) / is_other.sum(axis=1)).astype(np.float32)
    return share
