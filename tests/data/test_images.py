"""Decoding: upright RGB whatever the file, crops, and fingerprints by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from cl_steps.data.images import decode, dhash, thumbnail
from cl_steps.data.quarantine import Unusable, printable
from tests.data.landings import encoded, picture


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_turns_as_pillow_does(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = picture(1).crop((0, 0, 32, 20))
    content = encoded(image, "PNG", exif=exif)
    tagged = image.copy()
    tagged.getexif()[0x0112] = orientation
    expected = ImageOps.exif_transpose(tagged)
    assert decode(content).tobytes() == expected.tobytes()
    assert decode(content).size == expected.size


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA"])
def test_decode_gives_rgb(mode: str) -> None:
    image = picture(2).convert(mode)
    decoded = decode(encoded(image))
    assert decoded.mode == "RGB"
    assert decoded.tobytes() == image.convert("RGB").tobytes()


def test_decode_crops_the_centre() -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 10:30] = 255
    assert np.asarray(decode(encoded(Image.fromarray(pixels)), (20, 20))).min() == 255
    assert decode(encoded(picture(3)), (24, 12)).size == (24, 12)


def test_decode_refuses_what_is_no_image() -> None:
    with pytest.raises(Unusable):
        decode(b"nothing")


def test_dhash_by_hand() -> None:
    """Rising brightness sets every bit, falling and flat none."""
    ramp = Image.fromarray(np.tile(np.arange(9, dtype=np.uint8) * 20, (8, 1))).convert("RGB")
    assert dhash(ramp) == b"\xff" * 8
    assert dhash(ImageOps.mirror(ramp)) == bytes(8) == dhash(Image.new("RGB", (50, 50), (9, 9, 9)))
    noisy = np.random.default_rng(0).integers(100, 102, (64, 64, 3), dtype=np.uint8)
    assert dhash(Image.fromarray(noisy)) == bytes(8)


def test_thumbnail_is_the_mean_of_cells() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    means = pixels.reshape(8, 4, 8, 8, 3).mean(axis=(1, 3))
    found = np.frombuffer(thumbnail(Image.fromarray(pixels)), np.uint8).reshape(8, 8, 3)
    assert np.abs(found - means).max() <= 1


def test_hostile_names_are_printed_as_escapes() -> None:
    assert printable("a\x1b[2Jb\n\u202e\udce9 caf\u00e9") == "a\\x1b[2Jb\\n\\u202e\\udce9 caf\u00e9"
