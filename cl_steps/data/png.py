"""PNG files as their chunks: what the pixels need, each with its checksum right, and the colour profile apart.

Generators keep whole workflows in text chunks, scanners large profiles, and editors forget a checksum: viewers pass
over these, and Pillow refuses the picture. So nothing of them reaches Pillow (W3C PNG, third edition, 5 and 13.2).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from cl_steps.data.quarantine import Unusable

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PROFILE_BYTES = 16 * 2**20
_PIXELS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_BESIDE = frozenset({b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"})
"""Transparency, orientation, and what tells that it is animated."""
_PROFILE = b"iCCP"


def plain(content: bytes) -> tuple[bytes, bytes]:
    """A PNG with no chunk that its pixels do not need, and its colour profile (empty where it has none).

    Raises:
        Unusable: a chunk that the pixels need is cut short, missing, damaged, or none of the standard's.
    """
    kept, profile, whole = [memoryview(SIGNATURE)], b"", False
    for kind, chunk in _chunks(content):
        if kind in _PIXELS or kind[:1].isupper():
            if not _is_right(chunk) or kind not in _PIXELS:
                raise Unusable("damaged", "the image is damaged and cannot be decoded: export or copy it again")
            kept.append(chunk)
        elif _is_right(chunk):
            profile = profile or (_profile(chunk[8:-4]) if kind == _PROFILE else b"")
            kept.extend([chunk] if kind in _BESIDE else [])
        whole = whole or kind == b"IEND"
    if not whole:
        raise Unusable("damaged", "the image is cut short and cannot be decoded: export or copy it again")
    return b"".join(kept), profile


def _chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and all bytes of each whole chunk, up to the end of the image."""
    view, at, kind = memoryview(content), len(SIGNATURE), b""
    while at + 12 <= len(view) and kind != b"IEND":
        length = int.from_bytes(view[at : at + 4])
        if at + 12 + length > len(view):
            return
        kind = bytes(view[at + 4 : at + 8])
        yield kind, view[at : at + 12 + length]
        at += 12 + length


def _is_right(chunk: memoryview) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])


def _profile(data: memoryview) -> bytes:
    """The profile in the chunk: its name, a zero, the method (0), and it compressed; empty where it is none."""
    _, _, packed = bytes(data).partition(b"\0")
    try:
        unpacking = zlib.decompressobj()
        profile = unpacking.decompress(packed[1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return b""
    return profile if unpacking.eof else b""
