"""What a picture's numbers mean: profiles, transparency, 16 bits, and what others' libraries read."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from cl_steps.config import Ingest
from cl_steps.data import kinds
from cl_steps.data.images import ImageFacts, decode, inspect
from cl_steps.data.png import SIGNATURE, plain
from cl_steps.data.quarantine import Unusable
from tests.data.landings import encoded, picture

WIDE = (Path(__file__).parent / "wide-gamut.icc").read_bytes()
"""Primaries of ProPhoto, gamma 1.8."""
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
COLOUR = Image.new("RGB", (32, 32), (90, 160, 60))


def facts(content: bytes, **knobs: object) -> ImageFacts:
    return inspect(content, Ingest(**knobs))  # type: ignore[arg-type]


def code(content: bytes, **knobs: object) -> str:
    with pytest.raises(Unusable) as caught:
        facts(content, **knobs)
    return caught.value.code


def chunk(kind: bytes, data: bytes, wrong: int = 0) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ wrong)


def with_chunk(content: bytes, added: bytes) -> bytes:
    """A PNG with one more chunk, after its header."""
    return content[:33] + added + content[33:]


def logo(alpha: int = 0) -> Image.Image:
    """A red square with nothing around it."""
    image = Image.new("RGBA", (32, 32), (0, 0, 255, alpha))
    image.paste((255, 0, 0, 255), (8, 8, 24, 24))
    return image


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_a_wide_gamut_profile_is_brought_to_srgb(kind: str) -> None:
    red, green, blue = decode(encoded(COLOUR, kind, icc_profile=WIDE, quality=100)).getpixel((5, 5))  # type: ignore[misc]
    assert red < 12
    assert abs(green - 171) < 6
    assert blue < 20


def test_srgb_under_any_name_changes_no_bit() -> None:
    image = picture(1)
    assert decode(encoded(image, icc_profile=SRGB)).tobytes() == image.tobytes()


@pytest.mark.parametrize("profile", [b"junk", SRGB[:200], WIDE[:-100], b"\0" * 300])
def test_a_broken_profile_is_left_aside(profile: bytes) -> None:
    image = picture(1)
    assert decode(encoded(image, icc_profile=profile)).tobytes() == image.tobytes()


def test_a_profile_for_other_colours_than_the_pictures_is_left_aside() -> None:
    grey = picture(1).convert("L")
    assert decode(encoded(grey, icc_profile=WIDE)).tobytes() == grey.convert("RGB").tobytes()


def test_a_profile_holds_for_what_is_seen_of_a_transparent_picture() -> None:
    image = COLOUR.convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 0))
    found = decode(encoded(image, icc_profile=WIDE), background="#010203")
    assert (found.getpixel((0, 0)), found.getpixel((9, 9))[0] < 12) == ((1, 2, 3), True)  # type: ignore[index]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF"])
def test_a_transparent_picture_is_flattened_and_says_on_what(kind: str) -> None:
    content = encoded(logo(), kind, quality=100)
    for name, background in (("white", (255, 255, 255)), ("#102030", (16, 32, 48))):
        found = facts(content, background=name)
        assert found.background == name
        flat = decode(content, background=found.background)
        assert np.abs(np.subtract(flat.getpixel((1, 1)), background)).max() < 4  # type: ignore[arg-type]
        assert np.abs(np.subtract(flat.getpixel((16, 16)), (255, 0, 0))).max() < 6  # type: ignore[arg-type]
        assert np.frombuffer(found.thumbnail, np.uint8)[2] == flat.getpixel((1, 1))[2]  # type: ignore[index]


def test_half_of_an_alpha_is_half_of_the_background() -> None:
    assert decode(encoded(logo(128)), background="black").getpixel((1, 1)) == (0, 0, 128)


@pytest.mark.parametrize("content", [encoded(picture(2)), encoded(logo(255)), encoded(logo(250))])
def test_an_opaque_picture_has_no_background(content: bytes) -> None:
    assert facts(content).background == ""


def test_a_colour_that_means_nothing_is_flattened_too() -> None:
    palette = logo().convert("RGB").convert("P")
    content = encoded(palette, "PNG", transparency=palette.getpixel((0, 0)))
    assert facts(content).background == "white"
    assert decode(content, background="white").getpixel((1, 1)) == (255, 255, 255)
    deep = np.full((32, 32), 50_000, np.uint16)
    deep[8:24] = 20_000
    content = with_chunk(encoded(Image.fromarray(deep)), chunk(b"tRNS", struct.pack(">H", 50_000)))
    assert decode(content, background=facts(content, background="black").background).getpixel((1, 1)) == (0, 0, 0)


@pytest.mark.parametrize(("image", "background"), [(logo().point(lambda _: 0), "white"), (None, "white")])
def test_what_cannot_be_seen_on_the_background_is_refused(image: Image.Image | None, background: str) -> None:
    white = Image.new("RGBA", (32, 32), (255, 255, 255, 0))
    white.paste((255, 255, 255, 255), (8, 8, 24, 24))
    assert code(encoded(image or white), background=background) == "transparent"
    assert facts(encoded(white), background="black").background == "black"


def test_sixteen_bits_are_brought_to_eight() -> None:
    deep = np.linspace(0, 65_535, 32 * 32).astype(np.uint16).reshape(32, 32)
    content = encoded(Image.fromarray(deep))
    assert facts(content).background == ""
    assert np.array_equal(np.asarray(decode(content))[..., 0], np.round(deep / 257).astype(np.uint8))


def test_twelve_bits_in_sixteen_are_not_learnt_as_black() -> None:
    assert code(encoded(Image.fromarray(np.full((32, 32), 4_000, np.uint16)))) == "sixteen_bit"


def encoded_palette() -> bytes:
    """What the palette of `COLOUR` is in its file."""
    content = encoded(COLOUR.convert("P"))
    at = content.index(b"PLTE")
    return content[at + 4 : at + 4 + int.from_bytes(content[at - 4 : at])]


def half(content: bytes, end: bytes = b"") -> bytes:
    return content[: len(content) // 2] + end


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}])
def test_half_a_jpeg_with_an_end_is_damaged(options: dict[str, object]) -> None:
    content = encoded(picture(1, 200), "JPEG", **options)
    assert facts(content).width == 200
    assert code(half(content, b"\xff\xd9")) == "damaged"


def test_a_jpeg_is_as_viewers_take_it_where_no_pixel_is_missing() -> None:
    content = encoded(picture(1, 200), "JPEG")
    for odd in (content + b"more" * 9, content[:-2] + b"\0\0\xff\xd9"):
        assert facts(odd) == facts(content)


def test_chunks_that_no_pixel_needs_do_not_matter() -> None:
    content = encoded(picture(1))
    text = chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 3_000_000))
    for odd in (text, chunk(b"tEXt", b"a\0b", wrong=1), chunk(b"iCCP", b"n\0\0junk"), chunk(b"eXIf", b"", wrong=1)):
        assert facts(with_chunk(content, odd)) == facts(content)
        assert decode(with_chunk(content, odd)).tobytes() == picture(1).tobytes()


def test_a_large_profile_counts() -> None:
    padded = WIDE + bytes(2 * 2**20)
    padded = struct.pack(">I", len(padded)) + padded[4:]
    large = with_chunk(encoded(COLOUR), chunk(b"iCCP", b"scanner\0\0" + zlib.compress(padded)))
    assert decode(large).getpixel((5, 5))[0] < 12  # type: ignore[index]


def test_a_profile_without_end_is_not_unpacked() -> None:
    bomb = zlib.compress(bytes(64 * 2**20))
    assert plain(with_chunk(encoded(COLOUR), chunk(b"iCCP", b"n\0\0" + bomb)))[1] == b""


@pytest.mark.parametrize(
    "content",
    [
        SIGNATURE,
        encoded(COLOUR)[:-12],
        encoded(COLOUR)[:-2],
        with_chunk(encoded(COLOUR), chunk(b"PLTE", bytes(768), wrong=1)),
        with_chunk(encoded(COLOUR), chunk(b"NEED", b"")),
        encoded(COLOUR).replace(b"IDAT", b"IDAt"),
        encoded(COLOUR.convert("P")).replace(chunk(b"PLTE", encoded_palette()), b""),
    ],
)
def test_what_the_pixels_need_must_be_whole(content: bytes) -> None:
    assert code(content) == "damaged"


def test_a_strip_is_no_picture_of_its_caption() -> None:
    strip = encoded(picture(1).resize((400, 20)))
    assert code(strip) == "extreme_shape"
    assert facts(strip, max_aspect_ratio=20.0).width == 400


@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "JXL"])
def test_newer_formats_are_read(kind: str) -> None:
    pillow_heif.register_heif_opener()
    assert kinds.format_of(encoded(picture(1, 64), "AVIF")) == "AVIF"
    __import__("pillow_jxl")
    content = encoded(picture(1, 64), kind, quality=95)
    assert facts(content).background == ""
    assert np.abs(np.asarray(decode(content), int) - np.asarray(picture(1, 64), int)).mean() < 5


def test_a_format_without_its_reader_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif.register_heif_opener()
    content = encoded(picture(1, 64), "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    kinds._is_readable.cache_clear()
    try:
        with pytest.raises(Unusable, match=r"this is HEIC, .* `pip install 'retain\[formats\]'`"):
            decode(content)
    finally:
        kinds._is_readable.cache_clear()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"GIF89a", "this is a GIF image and no PNG"),
        (b"II*\0", "TIFF"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\n<!DOCTYPE html>", "this is a web page and no .*: download the picture itself"),
        (b"hello", "this is no PNG"),
    ],
)
def test_what_is_no_picture_is_called_what_it_is(content: bytes, words: str) -> None:
    with pytest.raises(Unusable, match=words) as caught:
        decode(content)
    assert caught.value.code == "not_an_image"


def test_the_profile_of_the_tests_is_as_it_says() -> None:
    assert ImageCms.ImageCmsProfile(io.BytesIO(WIDE)).profile.xcolor_space.strip() == "RGB"
