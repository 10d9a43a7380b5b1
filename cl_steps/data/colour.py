"""What a picture's numbers mean: more than 8 bits, colour profiles and transparency, brought to plain sRGB.

The profile decides which colour a number is (ICC.1:2022): a phone's Display P3, a camera's Adobe RGB. One that is
broken, or of another kind of colours than the picture, is left aside, as viewers do.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageCms

from cl_steps.data.png import MAX_PROFILE_BYTES
from cl_steps.data.quarantine import Unusable

SIXTEEN_BITS = frozenset({"I;16", "I;16B", "I;16L"})
OPAQUE_FROM = 250
"""An alpha of this much or more (of 255) is not seen; below it, a picture has holes."""
SAME = 2
"""Profiles that change no colour by more (of 255) are sRGB under another name: such pictures stay bit for bit."""
SEEN_FROM = 8
"""A picture that differs from its background by less (of 255) everywhere is not seen on it."""
FEWER_BITS = 0x0FFF
"""Numbers of 16 bits that stay below hold fewer, and would be nearly black."""

_SPACES = {"RGB": "RGB", "L": "GRAY"}


def eight_bits(image: Image.Image) -> Image.Image:
    """A picture of 16 bits a pixel in 8, with its alpha where one grey is said to be transparent; others as they are.

    Raises:
        Unusable: all of its numbers are as small as those of 12 bits or fewer.
    """
    if image.mode not in SIXTEEN_BITS:
        return image
    pixels = np.asarray(image).astype(np.uint32)
    if 0 < pixels.max() <= FEWER_BITS:
        reason = f"no pixel is brighter than {pixels.max()} of 65535: stretch the image to the whole range"
        raise Unusable("sixteen_bit", reason)
    grey = Image.fromarray(((pixels + 128) // 257).astype(np.uint8))
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(pixels == clear, 0, 255).astype(np.uint8))))


def has_holes(image: Image.Image) -> bool:
    """Whether something behind the picture would be seen."""
    if not image.has_transparency_data:
        return False
    lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
    return isinstance(lowest, int | float) and lowest < OPAQUE_FROM


def srgb(image: Image.Image, profile: bytes, background: str) -> Image.Image:
    """The picture in sRGB, flattened on `background`; where that is empty, it is opaque and its alpha is left aside."""
    alpha = image.convert("RGBA").getchannel("A") if background and image.has_transparency_data else None
    colours = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    transform = _transform(profile, colours.mode) if 0 < len(profile) <= MAX_PROFILE_BYTES else None
    flat = ImageCms.applyTransform(colours, transform) if transform else None
    flat = (flat or colours).convert("RGB")
    return Image.composite(flat, Image.new("RGB", flat.size, background), alpha) if alpha else flat


def is_seen(flat: Image.Image, background: str) -> bool:
    """Whether anything of a flattened picture is to be told from its background."""
    ground = Image.new("RGB", flat.size, background)
    extrema = np.array(ImageChops.difference(flat, ground).getextrema())
    return bool(extrema.max() >= SEEN_FROM)


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; None where it is sRGB, or cannot be used for pictures of this mode."""
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if own.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), mode, "RGB")
        before = _probe(mode)
        after = ImageCms.applyTransform(before, transform)
    except Exception:  # a hostile profile may raise anything
        return None
    apart = np.asarray(after, np.int16) - np.asarray(before.convert("RGB"), np.int16)
    return transform if np.abs(apart).max() > SAME else None


def _probe(mode: str) -> Image.Image:
    """A picture of colours from all over the space."""
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    if mode == "L":
        return Image.fromarray(levels[None])
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3))
