"""Landings of real files with some of their bits wrong: pictures, lines, captions, archives; by a seed."""

from __future__ import annotations

import io
import json
import random
import tarfile
from pathlib import Path

import pillow_heif
import pillow_jxl  # noqa: F401  (it makes itself known)
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageCms

from tests.data.landings import encoded, picture, put

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WIDE = (Path(__file__).parent / "wide-gamut.icc").read_bytes()


def _exif() -> Image.Exif:
    found = Image.Exif()
    found[0x0112], found[0x0132] = 6, "2026:01:02 03:04:05"
    return found


def good_pictures() -> list[bytes]:
    """One of each kind that is taken."""
    pillow_heif.register_heif_opener()
    plain, clear = picture(1, 48), picture(2, 48).convert("RGBA")
    clear.putalpha(picture(3, 48).convert("L"))
    return [
        *(encoded(plain, kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "AVIF", "HEIF", "JXL")),
        *(encoded(clear, kind) for kind in ("PNG", "WEBP", "AVIF")),
        *(encoded(plain, kind, icc_profile=WIDE, exif=_exif()) for kind in ("PNG", "JPEG", "WEBP")),
        *(encoded(plain.convert(mode)) for mode in ("1", "L", "P", "LA")),
        encoded(plain, "JPEG", progressive=True, restart_marker_blocks=2, icc_profile=SRGB),
        encoded(plain.convert("P"), "PNG", transparency=3),
    ]


def good_archives() -> list[tuple[str, bytes]]:
    """A tar of WebDataset, and Parquet as Hugging Face has it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in (("1.png", encoded(picture(4))), ("1.txt", b"one"), ("d/2.jpg", encoded(picture(5)))):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    cells = [{"bytes": encoded(picture(n)), "path": None} for n in (6, 7)]
    rows = io.BytesIO()
    pq.write_table(pa.table({"image": pa.array(cells), "text": ["six", "seven"]}), rows)
    return [("w.tar", buffer.getvalue()), ("p.parquet", rows.getvalue())]


def spoilt(dice: random.Random, content: bytes) -> bytes:
    """The same with bits flipped, pieces cut out, said twice, or put in."""
    found = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 8, 60))):
        at, length = dice.randrange(len(found) + 1), dice.choice((1, 1, 4, 40, 400))
        kind = dice.choice(("flip", "flip", "flip", "cut", "twice", "noise", "end", "zeros"))
        if kind == "flip" and at < len(found):
            found[at] ^= 1 << dice.randrange(8)
        elif kind == "cut":
            del found[at : at + length]
        elif kind == "twice":
            found[at:at] = found[at : at + length]
        elif kind == "end":
            del found[at:]
        else:
            found[at : at + length] = dice.randbytes(length) if kind == "noise" else bytes(length)
    return bytes(found)


def spoilt_landing(folder: Path, seed: int, number: int) -> None:
    """So many pictures, each with a line or a caption beside it, and some archives, most of them spoilt."""
    dice = random.Random(seed)
    pictures, archives = good_pictures(), good_archives()
    lines = []
    for index in range(number):
        name = f"{index:05d}{dice.choice(('.png', '.jpg', '.img', '.heic'))}"
        put(folder, name, spoilt(dice, dice.choice(pictures)))
        line = json.dumps({"file_name": name, "text": f"picture {index}", "slice": "ink"}).encode()
        if dice.random() < 0.3:
            put(
                folder,
                f"{index:05d}{dice.choice(('.txt', '.json'))}",
                spoilt(dice, line) if dice.random() < 0.5 else line,
            )
        else:
            lines.append(spoilt(dice, line) if dice.random() < 0.3 else line)
        if dice.random() < 0.02:
            archive, content = dice.choice(archives)
            put(folder, f"{index:05d}-{archive}", spoilt(dice, content))
    put(folder, "metadata.jsonl", b"\n".join(lines))
