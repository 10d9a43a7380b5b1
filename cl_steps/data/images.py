"""Images as hostile bytes: opened within limits, decoded whole, brought to upright sRGB, and given fingerprints.

Nothing here opens a file; everybody who turns an asset's bytes into pixels does it with `decode`.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from PIL import Image, ImageOps
from simplejpeg import decode_jpeg

from cl_steps.config import PILLOW_MAX_PIXELS, Ingest
from cl_steps.data import colour, jxl, png
from cl_steps.data.kinds import format_of
from cl_steps.data.quarantine import Unusable

COLOUR_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"}) | colour.SIXTEEN_BITS
STILLS = frozenset({"MPO", "HEIF"})
"""Formats of phones, whose further pictures are depth maps and the like."""
DETAIL_FROM = 64
DHASH_STEP = 2
"""A neighbour must be this much brighter (of 255) to count, so that noise on flat ground sets no bits."""

_DAMAGE = re.compile(r"Corrupt JPEG data: (?P<harmless>\d+ extraneous bytes before marker 0xd9)?|Premature end")
"""What libjpeg warns of; a few bytes too many before the end are no harm."""
_ORIENTATION_TAG, _EXIF, _TAKEN = 0x0112, 0x8769, 0x9003
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
    """What is remembered of an image: size in pixels as seen upright, and its fingerprints.

    `background` is what was put behind a transparent one, empty where it is opaque; `taken` is when a camera took it,
    by its own clock (ISO 8601), empty where it does not say.
    """

    width: int
    height: int
    dhash: bytes
    thumbnail: bytes
    detail: bytes
    background: str
    taken: str


@dataclass(frozen=True)
class _Opened:
    """An image whose header was read, with the colour profile that it brought."""

    image: Image.Image
    profile: bytes


def decode(asset_bytes: bytes, size: tuple[int, int] | None = None, background: str = "") -> Image.Image:
    """The image in upright sRGB; with `size` (width, height) its largest centred part of that shape, LANCZOS-resized.

    Args:
        asset_bytes: of a file.
        size: the shape that is wanted.
        background: the asset's own fact: the colour behind what is transparent; empty for an opaque image.

    Raises:
        Unusable: the bytes are no image of an allowed format, are damaged, or declare too many pixels.
    """
    with quiet_pillow(), _damage_is_said():
        image = _upright(_opened(asset_bytes, PILLOW_MAX_PIXELS), background)
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS) if size else image


def inspect(image_bytes: bytes, limits: Ingest) -> ImageFacts:
    """Check an image that arrived, decode all of it and measure it; raises Unusable with the first fault found.

    Call it inside `quiet_pillow` (once around all images: Python's warning filters are the whole process's).
    """
    with _damage_is_said():
        opened = _opened(image_bytes, limits.max_pixels)
        _check_kind(opened.image, limits)
        opened.image.load()
        _check_whole(opened.image, image_bytes)
        background = limits.background if colour.has_holes(colour.eight_bits(opened.image)) else ""
        upright = _upright(opened, background)
    if background and not colour.is_seen(upright, background):
        reason = f"nothing of the image is to be seen on {background}: flatten it, or set another ingest.background"
        raise Unusable("transparent", reason)
    prints = (dhash(upright), thumbnail(upright), detail(upright))
    return ImageFacts(*upright.size, *prints, background, _taken(opened.image))


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


def detail(image: Image.Image) -> bytes:
    """16x16 means of brightness, row by row: 256 bytes; empty where a cell would be of less than 4 pixels a side."""
    if min(image.size) < DETAIL_FROM:
        return b""
    return image.resize((16, 16), Image.Resampling.BOX).convert("L").tobytes()


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


def _opened(image_bytes: bytes, max_pixels: int) -> _Opened:
    """The header read and the declared size checked; no pixel is decoded yet."""
    if not image_bytes:
        raise Unusable("empty_file", "the file is empty: export or copy it again")
    kind = format_of(image_bytes)
    content, profile = png.plain(image_bytes) if kind == "PNG" else (image_bytes, b"")
    if kind == "JXL":
        _check_declared(jxl.header(image_bytes), max_pixels)
    try:
        image = Image.open(io.BytesIO(content), formats=(kind,))
    except Image.DecompressionBombError:
        raise _too_many_pixels(max_pixels) from None
    if image.width * image.height > max_pixels:
        raise _too_many_pixels(max_pixels)
    found = profile or image.info.get("icc_profile")
    return _Opened(image, found if isinstance(found, bytes) else b"")


def _check_declared(header: jxl.Header, max_pixels: int) -> None:
    """Of a format whose reader decodes what it opens, all frames at once."""
    if header.width * header.height > max_pixels:
        raise _too_many_pixels(max_pixels)
    if header.moves:
        raise Unusable("animated", "the image is animated, or has a preview: export the one frame that is meant")


def _check_kind(image: Image.Image, limits: Ingest) -> None:
    size = f"the image is {image.width}x{image.height} pixels"
    if min(image.size) < limits.min_side:
        raise Unusable("too_small", f"{size}: give one with both sides >= {limits.min_side}")
    if max(image.size) > limits.max_aspect_ratio * min(image.size):
        reason = f"{size}, and most of it would be cut off: crop it to what its caption says (ingest.max_aspect_ratio)"
        raise Unusable("extreme_shape", reason)
    if image.format not in STILLS and getattr(image, "n_frames", 1) > 1:
        raise Unusable("animated", "the image is animated: export the one frame that is meant")
    if image.mode == "CMYK":
        raise Unusable("cmyk", "the image is in CMYK, for print: convert it to RGB")
    if image.mode not in COLOUR_MODES and image.mode.startswith("I"):
        raise Unusable("sixteen_bit", "the image has more than 16 bits a pixel: convert it to 8")
    if image.mode not in COLOUR_MODES:
        raise Unusable("colour_mode", f"the image's colour mode is {image.mode}: convert it to RGB")


def _check_whole(image: Image.Image, image_bytes: bytes) -> None:
    """Decode a JPEG once more, strictly: libjpeg fills what is missing or wrong with grey, and Pillow does not ask."""
    if image.format not in ("JPEG", "MPO"):
        return
    try:
        decode_jpeg(image_bytes, "GRAY", strict=True)
    except ValueError as error:  # what it cannot decode at all, Pillow did
        if (damage := _DAMAGE.match(str(error))) and not damage["harmless"]:
            raise Unusable("damaged", "a part of the image is missing or wrong: export or copy it again") from error


@contextmanager
def _damage_is_said() -> Iterator[None]:
    """Whatever a library raises of hostile bytes, an assertion of its own too, means that the image is damaged."""
    try:
        yield
    except Unusable:
        raise
    except Exception as error:
        kind = "cut short" if "truncated" in str(error) else "damaged"
        reason = f"the image is {kind} and cannot be decoded: export or copy it again"
        raise Unusable("damaged", reason) from error


def _upright(opened: _Opened, background: str) -> Image.Image:
    opened.image.load()
    turn = _UPRIGHT.get(_orientation(opened.image))
    image = colour.srgb(colour.eight_bits(opened.image), opened.profile, background)
    return image.transpose(turn) if turn is not None else image


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) where the EXIF block is damaged, as viewers take it."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a hostile EXIF block may raise anything
        return 1
    return value if isinstance(value, int) else 1


def _taken(image: Image.Image) -> str:
    """When the camera says that it took the picture: EXIF has `2026:01:02 03:04:05`."""
    try:
        value = image.getexif().get_ifd(_EXIF).get(_TAKEN, "")
        return datetime.strptime(str(value).strip("\0 "), "%Y:%m:%d %H:%M:%S").isoformat()
    except Exception:  # a hostile EXIF block may raise anything
        return ""


def _too_many_pixels(max_pixels: int) -> Unusable:
    return Unusable("too_many_pixels", f"the image declares more than {max_pixels} pixels: make it smaller")
