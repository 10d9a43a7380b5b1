"""The same prompts and seeds before and after: what `evaluate` drew, as the page shows it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from cl_steps.report.overview import Table, rows, table, text
from cl_steps.stats.samples import PROMPTS, grid_file

PNG = b"\x89PNG\r\n\x1a\n"
TINY, TALL, MAX_PIXELS = 128, 192, 2**25
"""Rows lower than `TINY` pixels show their pixels as they are; taller ones than `TALL` are made smaller."""


@dataclass(frozen=True)
class Picture:
    """A picture to put in the page: a data URL and its size in pixels."""

    url: str
    width: int
    height: int


@dataclass(frozen=True)
class Pair:
    """One slice's grids; each is a row of pictures, one a caption. `before` is None for a model that lacks it."""

    slice: str
    captions: tuple[str, ...]
    before: Picture | None
    after: Picture | None
    tiny: bool
    new: bool


def pairs(files: Mapping[str, bytes], fresh: Collection[str] = ()) -> tuple[Pair, ...]:
    """The pairs in the files of a night's `tonight/evaluation/samples`, those of new slices first."""
    try:
        document = table(json.loads(files.get(PROMPTS, b"{}")))
    except ValueError:
        return ()
    found = (_pair(text(name), name, rows(prompts), files, name in fresh) for name, prompts in document.items())
    return tuple(sorted((pair for pair in found if pair), key=lambda pair: (not pair.new, pair.slice)))


def picture(content: bytes) -> Picture | None:
    """A PNG for the page, a large one as a smaller JPEG; None for anything else."""
    if content[:8] != PNG or content[12:16] != b"IHDR":
        return None
    width, height = int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
    if not 0 < width * height <= MAX_PIXELS:
        return None
    if height > TALL:
        width, height = max(1, round(width * TALL / height)), TALL
        return Picture(_url("jpeg", _smaller(content, (width, height))), width, height)
    return Picture(_url("png", content), width, height)


def _smaller(content: bytes, size: tuple[int, int]) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(stream, "JPEG", quality=88)
    return stream.getvalue()


def _url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _pair(shown: str, name: str, prompts: list[Table], files: Mapping[str, bytes], new: bool) -> Pair | None:
    before, after = (picture(files.get(grid_file(name, model), b"")) for model in ("champion", "candidate"))
    heights = [grid.height for grid in (before, after) if grid]
    captions = tuple(text(item.get("prompt")) for item in prompts)
    return Pair(shown, captions, before, after, min(heights) < TINY, new) if heights else None
