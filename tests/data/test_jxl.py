"""What a JPEG XL declares is known before its reader, which decodes what it opens, sees it."""

from __future__ import annotations

import pillow_jxl  # noqa: F401  (it makes itself known)
import pytest
from PIL import Image

from cl_steps.config import Ingest
from cl_steps.data.images import decode, inspect
from cl_steps.data.jxl import SIGNATURE, Header, header
from cl_steps.data.quarantine import Unusable
from tests.data.landings import encoded


def declaring(*fields: tuple[int, int]) -> bytes:
    """A codestream that begins with these (value, number of bits)."""
    value, at = 0, 0
    for field, bits in fields:
        value |= field << at
        at += bits
    return SIGNATURE + value.to_bytes(32, "little")


SQUARE = ((1, 1), (7, 5), (1, 3))
"""64x64, as small sizes are written."""


@pytest.mark.parametrize("size", [(64, 64), (48, 32), (8, 256), (333, 77), (640, 360), (1000, 700), (5000, 3)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_a_size_is_read_as_the_reader_reads_it(size: tuple[int, int], mode: str) -> None:
    content = encoded(Image.new(mode, size), "JXL")
    assert header(content) == Header(*size, moves=False)


def test_a_size_in_a_box_is_read_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    content = encoded(Image.new("RGB", (70, 50)), "JXL", exif=exif.tobytes())
    assert not content.startswith(SIGNATURE)
    assert header(content) == Header(70, 50, moves=False)


@pytest.mark.parametrize("read", [decode, lambda content: inspect(content, Ingest())])
def test_a_bomb_is_not_opened(monkeypatch: pytest.MonkeyPatch, read: object) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("its reader decodes what it opens"))
    bomb = declaring((0, 1), (3, 2), (2**30 - 1, 30), (1, 3))
    with pytest.raises(Unusable) as caught:
        read(bomb)  # type: ignore[operator]
    assert caught.value.code == "too_many_pixels"


@pytest.mark.parametrize(("preview", "animation"), [(1, 0), (0, 1), (0, 0)])
def test_frames_without_end_are_not_opened(preview: int, animation: int) -> None:
    fields = [*SQUARE, (0, 1), (1, 1), (0, 3), (0, 1), (preview, 1), (animation, 1)]
    assert header(declaring(*fields)) == Header(64, 64, moves=bool(preview or animation))


@pytest.mark.parametrize("content", [SIGNATURE, b"\0\0\0\x0cJXL \r\n\x87\n", b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x01jxlc"])
def test_what_ends_before_it_says_so_is_damaged(content: bytes) -> None:
    with pytest.raises(Unusable) as caught:
        decode(content)
    assert caught.value.code == "damaged"
