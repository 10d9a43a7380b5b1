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
_OTHERS = (
    (b"GIF8", 0, "a GIF image"),
    (b"II*\0", 0, "a TIFF or raw image"),
    (b"MM\0*", 0, "a TIFF or raw image"),
    (b"8BPS", 0, "a Photoshop document"),
    (b"\0\0\x01\0", 0, "an icon"),
    (b"%PDF", 0, "a PDF"),
    (b"%!PS", 0, "PostScript"),
    (b"PK\x03\x04", 0, "a zip archive"),
    (
        b"version https://git-lfs",
        0,
        "a pointer of Git LFS, and not the picture: fetch it with `git lfs pull`, and it is",
    ),
    (b"<svg", 0, "an SVG drawing"),
    (b"<?xml", 0, "XML"),
    (b"<!DOCTYPE", 0, "a web page, which a server sent in place of the picture,"),
    (b"<html", 0, "a web page, which a server sent in place of the picture,"),
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
        raise Unusable("not_an_image", f"this is {_other(head)}no {READ} image: convert it to one of them")
    if not _is_readable(found):
        kind = _PLUGINS.get(found, ("", found))[1]
        reason = f"this is {kind}, and its reader is not installed: `pip install 'retain[formats]'`, or convert it"
        raise Unusable("not_readable", reason)
    return found


def is_picture(content: bytes) -> bool:
    """Whether the bytes begin as those of a picture, one that cannot be read here too."""
    return any(content.startswith(bits, at) for bits, at, _ in _PICTURES)


def _other(head: bytes) -> str:
    found = next((name for bits, at, name in _OTHERS if head.lstrip().startswith(bits, at)), "")
    return f"{found} and " if found else ""


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
