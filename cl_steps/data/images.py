"""Images as hostile bytes: opened within limits, decoded whole, brought to upright RGB, and given fingerprints.

Nothing here opens a file; everybody who turns an asset's bytes into pixels does it with `decode`.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cl_steps.config import PILLOW_MAX_PIXELS, Ingest
from cl_steps.data.quarantine import Unusable

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
COLOUR_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})
OPAQUE_FROM = 250
"""An alpha of this much or more (of 255) is not seen; below it, a picture has holes."""
DHASH_STEP = 2
"""A neighbour must be this much brighter (of 255) to count, so that noise on flat ground sets no bits."""

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ImageFacts:
    """What is remembered of an image's pixels: size in pixels as seen upright, and two fingerprints."""

    width: int
    height: int
    dhash: bytes
    thumbnail: bytes


def decode(asset_bytes: bytes, size: tuple[int, int] | None = None) -> Image.Image:
    """The image in upright RGB; with `size` (width, height) its largest centred part of that shape, LANCZOS-resized.

    Raises:
        Unusable: the bytes are no image of an allowed format, are damaged, or declare too many pixels.
    """
    with quiet_pillow():
        image = _upright_rgb(_opened(asset_bytes, PILLOW_MAX_PIXELS))
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS) if size else image


def inspect(image_bytes: bytes, limits: Ingest) -> ImageFacts:
    """Check an image that arrived, decode all of it and measure it; raises Unusable with the first fault found.

    Call it inside `quiet_pillow` (once around all images: Python's warning filters are the whole process's).
    """
    image = _opened(image_bytes, limits.max_pixels)
    _check_kind(image, limits)
    _load(image)
    _check_opaque(image)
    upright = _upright_rgb(image)
    return ImageFacts(*upright.size, dhash(upright), thumbnail(upright))


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Pillow warns of odd EXIF and large images; our own limits decide, and what they refuse is refused aloud."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def thumbnail(image: Image.Image) -> bytes:
    """8x8 means of an RGB image, row by row: 192 bytes. The whole image is used, whatever its shape."""
    return image.resize((8, 8), Image.Resampling.BOX).tobytes()


def dhash(image: Image.Image) -> bytes:
    """64 bits: is a cell of a 9x8 grid brighter than its left neighbour? (N. Krawetz, "Kind of Like That", 2013)."""
    grid = np.asarray(image.resize((9, 8), Image.Resampling.BOX).convert("L"), dtype=np.int16)
    return np.packbits(grid[:, 1:] - grid[:, :-1] >= DHASH_STEP).tobytes()


def by_size(sizes: Iterable[tuple[int, int]]) -> dict[tuple[int, int], list[int]]:
    """The places of each size, in order."""
    places: dict[tuple[int, int], list[int]] = {}
    for place, size in enumerate(sizes):
        places.setdefault(size, []).append(place)
    return places


def _opened(image_bytes: bytes, max_pixels: int) -> Image.Image:
    """The header read and the declared size checked; no pixel is decoded yet."""
    if not image_bytes:
        raise Unusable("empty_file", "the file is empty: export or copy it again")
    try:
        image = Image.open(io.BytesIO(image_bytes), formats=FORMATS)
    except UnidentifiedImageError:
        raise Unusable("not_an_image", "this is no PNG, JPEG, WEBP or BMP image: convert it to one of them") from None
    except Image.DecompressionBombError:
        raise _too_many_pixels(max_pixels) from None
    except Exception as error:
        raise _damaged(error) from error
    if image.width * image.height > max_pixels:
        raise _too_many_pixels(max_pixels)
    return image


def _check_kind(image: Image.Image, limits: Ingest) -> None:
    if min(image.size) < limits.min_side:
        reason = f"the image is {image.width}x{image.height} pixels: give one with both sides >= {limits.min_side}"
        raise Unusable("too_small", reason)
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # MPO: a phone's photo with a depth map
        raise Unusable("animated", "the image is animated: export the one frame that is meant")
    if image.mode == "CMYK":
        raise Unusable("cmyk", "the image is in CMYK, for print: convert it to RGB")
    if image.mode.startswith("I"):
        raise Unusable("sixteen_bit", "the image has more than 8 bits a channel: convert it to 8 bits")
    if image.mode not in COLOUR_MODES:
        raise Unusable("colour_mode", f"the image's colour mode is {image.mode}: convert it to RGB")


def _check_opaque(image: Image.Image) -> None:
    if not image.has_transparency_data:
        return
    lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
    if isinstance(lowest, int | float) and lowest < OPAQUE_FROM:
        raise Unusable("transparent", "the image is transparent in places: flatten it on the background that is meant")


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except Exception as error:
        raise _damaged(error) from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    _load(image)
    turn = _UPRIGHT.get(_orientation(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
    image = image.convert("RGB")
    return image.transpose(turn) if turn is not None else image


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) where the EXIF block is damaged, as viewers take it."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a hostile EXIF block may raise anything
        return 1
    return value if isinstance(value, int) else 1


def _too_many_pixels(max_pixels: int) -> Unusable:
    return Unusable("too_many_pixels", f"the image declares more than {max_pixels} pixels: make it smaller")


def _damaged(error: Exception) -> Unusable:
    kind = "cut short" if "truncated" in str(error) else "damaged"
    return Unusable("damaged", f"the image is {kind} and cannot be decoded: export or copy it again")
