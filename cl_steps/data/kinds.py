"""What a file is by its first bytes, and which kinds of pictures this installation reads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from types import MappingProxyType

from PIL import Image, features

from cl_steps.data.quarantine import Unusable

READ = "PNG, JPEG, WEBP, BMP or AVIF"
_PICTURES = (  # the bytes, where they begin, and the format as Pillow calls it
    (b"\x89PNG\r\n\x1a\n", 0, "PNG"),
    (b"\xff\xd8\xff", 0, "JPEG"),
    (b"WEBP", 8, "WEBP"),
    (b"BM", 0, "BMP"),
    (b"ftypavif", 4, "AVIF"),
    (b"ftypavis", 4, "AVIF"),
    *((b"ftyp" + brand, 4, "HEIF") for brand in (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1")),
    (b"\xff\x0a", 0, "JXL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", 0, "JXL"),
)
CONVERT = "convert it to one of them"
_OTHERS = (  # the bytes that it begins with, what it is, and what to do
    (b"GIF8", "a GIF image", CONVERT),
    (b"II*\0", "a TIFF or raw image", CONVERT),
    (b"MM\0*", "a TIFF or raw image", CONVERT),
    (b"8BPS", "a Photoshop document", CONVERT),
    (b"\0\0\x01\0", "an icon", CONVERT),
    (b"%PDF", "a PDF", CONVERT),
    (b"%!PS", "PostScript", CONVERT),
    (b"<svg", "an SVG drawing", CONVERT),
    (b"<?xml", "XML", CONVERT),
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the picture with `git lfs pull`"),
    (b"<!DOCTYPE", "a web page", "download the picture itself"),
    (b"<html", "a web page", "download the picture itself"),
)
_PLUGINS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"HEIF": ("pillow_heif", "HEIC"), "JXL": ("pillow_jxl", "JPEG XL")}
)
"""Formats that Pillow reads with a library of others: `pip install 'retain[formats]'`."""


def format_of(content: bytes) -> str:
    """Pillow's name of the format of a picture; raises Unusable where it is none that can be read here."""
    head = content[:64]
    found = next((name for bits, at, name in _PICTURES if head.startswith(bits, at)), "")
    if found == "HEIF" and b"avif" in head:  # both may call themselves mif1
        found = "AVIF"
    if not found:
        raise Unusable("not_an_image", _what_it_is(head))
    if not _is_readable(found):
        kind = _PLUGINS.get(found, ("", found))[1]
        reason = f"this is {kind}, and its reader is not installed: `pip install 'retain[formats]'`, or convert it"
        raise Unusable("not_readable", reason)
    return found


def is_picture(content: bytes) -> bool:
    """Whether the bytes begin as those of a picture, one that cannot be read here too."""
    return any(content.startswith(bits, at) for bits, at, _ in _PICTURES)


def _what_it_is(head: bytes) -> str:
    found = next((other for other in _OTHERS if head.lstrip().startswith(other[0])), None)
    return f"this is {found[1]} and no {READ} image: {found[2]}" if found else f"this is no {READ} image: {CONVERT}"


@lru_cache
def _is_readable(name: str) -> bool:
    """Whether Pillow has a reader of this format; those of others are told to it."""
    if name == "AVIF":
        return bool(features.check("avif"))
    if name not in _PLUGINS:
        return True
    try:
        module = import_module(_PLUGINS[name][0])
    except ImportError:
        return False
    if name == "HEIF":
        module.register_heif_opener(thumbnails=False)
    return name in Image.OPEN
