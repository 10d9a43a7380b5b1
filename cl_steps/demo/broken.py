"""The files that an intake has to survive: broken, outsized, unexpected, and lines that point where they must not.

Each is one way in which landing folders go wrong in earnest; all are small, and none does harm when it is refused.
"""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cl_steps.documents import Json

Line = dict[str, Any]
Picture = NDArray[np.uint8]

BOMB_SIDE = 60_000
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
HOSTILE_TEXT = "<script>alert(1)</script>$(rm -rf ~)"


def write_broken(folder: Path, sound: Sequence[Picture], facts: Json) -> list[Line]:
    """Writes the files, made of sound (32, 32, 3) pictures where they need any, and returns their metadata lines.

    `facts` is an ordinary metadata line; one file has no line, and one line has no file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [*_write_undecodable(folder, sound[0]), *_write_unusual(folder, sound)]
    Image.fromarray(sound[2]).save(folder / "without-a-line.png")
    Image.fromarray(sound[3]).save(folder / "without-a-caption.png")
    Image.fromarray(sound[4]).save(folder / "hostile-caption.png")
    lines = [{**facts, "file_name": name} for name in [*names, "../../outside.png"]]
    without = {key: value for key, value in facts.items() if key != "text"}
    lines.append({**without, "file_name": "without-a-caption.png"})
    lines.append({**facts, "file_name": "hostile-caption.png", "text": HOSTILE_TEXT})
    return lines


def _write_undecodable(folder: Path, sound: Picture) -> list[str]:
    """A file cut short, an empty one, a text, and a picture that would need gigabytes."""
    whole = folder / "cut-short.png"
    Image.fromarray(sound).save(whole)
    contents = {
        "cut-short.png": whole.read_bytes()[: whole.stat().st_size // 2],
        "empty.png": b"",
        "text.png": b"This is a text that calls itself a picture.\n",
        "bomb.png": bomb(),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return list(contents)


def _write_unusual(folder: Path, sound: Sequence[Picture]) -> list[str]:
    """Sound files of kinds that a line of still RGB pictures does not expect: moving ones, inks, 16 bits."""
    frames = [Image.fromarray(picture) for picture in sound[:3]]
    for name in ("moving.gif", "moving.png"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:], duration=100)
    frames[1].convert("CMYK").save(folder / "inks.jpg")
    grey = sound[2].mean(axis=2).astype(np.uint16) * 257
    Image.fromarray(grey).save(folder / "sixteen-bits.png")
    return ["moving.gif", "moving.png", "inks.jpg", "sixteen-bits.png"]


def bomb() -> bytes:
    """A valid PNG header that declares 60,000 x 60,000 pixels (10.8 GB of RGB) over a few bytes of data."""
    header = struct.pack(">IIBBBBB", BOMB_SIDE, BOMB_SIDE, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(BOMB_SIDE), 9)
    return PNG_MAGIC + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk: length, kind, data, checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
