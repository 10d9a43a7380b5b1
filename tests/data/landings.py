"""Small landings and manifests for the tests of taking in."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Values = Mapping[str, Any]


def picture(number: int, side: int = 32) -> Image.Image:
    """A smooth random RGB picture, another one for each number."""
    noise = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The image as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def put(folder: Path, name: str, content: bytes) -> Path:
    """Write a file in a folder, with the folders between."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def jsonl(folder: Path, *lines: Values | str | bytes) -> None:
    """Append lines to `metadata.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metadata.jsonl").open("ab") as file:
        for line in lines:
            text = line if isinstance(line, str | bytes) else json.dumps(line)
            file.write((text if isinstance(text, bytes) else text.encode()) + b"\n")


def table(folder: Path, *rows: Values) -> None:
    """Write `metadata.csv`."""
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def fill(folder: Path, numbers: range, slice_name: str = "ink", prefix: str = "") -> Path:
    """A landing of distinct pictures with captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        name = f"{prefix}{number:03d}.png"
        put(folder, name, encoded(picture(number)))
        jsonl(folder, {"file_name": name, "text": f"picture {number}", "slice": slice_name})
    return folder
