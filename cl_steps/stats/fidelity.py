"""How well a picture fits its caption, on a scale that means the same whatever the extractor.

    fidelity = f . (c - m) / scale

f is the picture's feature vector, c its own caption's, m the mean caption of the whole evaluation set (every slice
counting the same), all unit vectors before the mean. `scale` is the mean of f . (c - m) over the slice's own held-out
images. So 1: as well as the held-out images fit their captions; 0: no better than any other caption would.

Choosing the best caption (R-precision) fails where several captions say the same thing, as templates do; being linear,
this figure does not care, never saturates, and varies little.

Shapes: n pictures, d features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cl_steps.stats.paired import Floats, mean_estimate

BLIND_LEVEL = 0.001
"""Captions count as readable in a slice if its own images fit them better than other captions at this level."""


@dataclass(frozen=True)
class CaptionScale:
    """`centre` (d,) and, for each slice whose captions the extractor can read, `scales`."""

    centre: Floats
    scales: Mapping[str, float]

    @classmethod
    def of(cls, images: Mapping[str, Floats], captions: Mapping[str, Floats]) -> CaptionScale:
        """From held-out images and their captions, both (n, d) by slice."""
        centre = np.mean([rows.mean(axis=0) for _, rows in sorted(captions.items())], axis=0)
        fits = {name: ((images[name] * (rows - centre)).sum(axis=1)) for name, rows in captions.items()}
        readable = {name: fit for name, fit in fits.items() if mean_estimate(fit).lower(BLIND_LEVEL) > 0}
        return cls(centre, {name: float(fit.mean()) for name, fit in readable.items()})

    def fidelity(self, slice_name: str, images: Floats, captions: Floats) -> Floats:
        """(n,) figures of n pictures (n, d) and their captions (n, d)."""
        fit: Floats = (images * (captions - self.centre)).sum(axis=1) / self.scales[slice_name]
        return fit
