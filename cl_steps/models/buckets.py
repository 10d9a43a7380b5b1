"""Sizes of about as many pixels and other shapes: a picture is learnt and drawn in the one nearest to its own shape."""

from __future__ import annotations

import math

from diffusers.training_utils import generate_aspect_ratio_buckets

from cl_steps.models.watching import Size

DIVISORS = (64, 32, 16, 8, 4, 2)
CELLS = 4
"""A side has at least as many steps as this, so that shapes are told apart."""


def buckets(size: Size) -> tuple[Size, ...]:
    """The sizes (width, height) beside a base's own, which is the first.

    Sides are multiples of 64 pixels, or of less where the base's own are small or are none.
    """
    divisor = next((one for one in DIVISORS if all(side % one == 0 and side >= CELLS * one for side in size)), 0)
    if not divisor:
        return (size,)
    found = generate_aspect_ratio_buckets(math.isqrt(size[0] * size[1]), divisor)
    return tuple(dict.fromkeys([size, *((width, height) for height, width in found)]))


def by_nearness(sizes: tuple[Size, ...], picture: Size) -> list[Size]:
    """Sizes, those first whose shape is nearest to a picture's: that keep most of it; equal ones stay in order."""
    return sorted(sizes, key=lambda size: -kept(size, picture))


def kept(size: Size, picture: Size) -> float:
    """The share of a picture's pixels that its largest part of a size's shape has."""
    ratio = (picture[0] * size[1]) / (picture[1] * size[0])
    return min(ratio, 1 / ratio)
