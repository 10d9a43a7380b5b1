"""JPEG XL files as their first bits: the size that they declare, since their reader decodes whatever it opens.

ISO/IEC 18181-1, SizeHeader and ImageMetadata; 18181-2, boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cl_steps.data.quarantine import Unusable

SIGNATURE = b"\xff\x0a"
_SIDES = (9, 13, 18, 30)
"""Bits of a side, by the two bits before it."""
_RATIOS = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


@dataclass(frozen=True)
class Header:
    """Size in pixels, turned or not, and whether there are more frames than one, or a preview."""

    width: int
    height: int
    moves: bool


def header(content: bytes) -> Header:
    """What a file declares; raises Unusable where it is no JPEG XL, or ends before it says so."""
    bits = _Bits(_codestream(content))
    width, height = _size(bits)
    moves = False
    if not bits.take(1) and bits.take(1):  # not all of the metadata is as usual, and there are further fields
        bits.take(3)  # orientation
        if bits.take(1):  # another size to show it in
            _size(bits)
        moves = bool(bits.take(1) or bits.take(1))
    return Header(width, height, moves)


class _Bits:
    """Bits from the lowest of each byte."""

    def __init__(self, content: bytes) -> None:
        self._value, self._left = int.from_bytes(content, "little"), 8 * len(content)

    def take(self, number: int) -> int:
        if number > self._left:
            raise _damaged()
        found = self._value & ((1 << number) - 1)
        self._value >>= number
        self._left -= number
        return found


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)

    def side() -> int:
        return 8 * (bits.take(5) + 1) if small else bits.take(_SIDES[bits.take(2)]) + 1

    height = side()
    times, by = _RATIOS[bits.take(3)]
    return (height * times // by if times else side()), height


def _codestream(content: bytes) -> bytes:
    """The first bytes of the picture itself, which may lie in a box."""
    if content.startswith(SIGNATURE):
        return content[2:66]
    for kind, begin in _boxes(content):
        if kind in (b"jxlc", b"jxlp"):
            begin += 4 if kind == b"jxlp" else 0  # noqa: PLW2901  (its number comes first)
            if content.startswith(SIGNATURE, begin):
                return content[begin + 2 : begin + 66]
    raise _damaged()


def _boxes(content: bytes) -> Iterator[tuple[bytes, int]]:
    """The kind of each box, and where its content begins."""
    at = 0
    while at + 8 <= len(content):
        size, begin = int.from_bytes(content[at : at + 4]), at + 8
        if size == 1:
            size, begin = int.from_bytes(content[at + 8 : at + 16]), at + 16
        yield content[at + 4 : at + 8], begin
        if size < begin - at:  # 0: to the end
            return
        at += size


def _damaged() -> Unusable:
    return Unusable("damaged", "the image is damaged and cannot be decoded: export or copy it again")
