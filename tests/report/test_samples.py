"""Pictures for the page."""

from __future__ import annotations

import io
import json

from PIL import Image

from cl_steps.report.samples import MAX_PIXELS, TALL, pairs, picture


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (200, 10, 10)).save(stream, "PNG")
    return stream.getvalue()


def test_small_pictures_are_kept_as_they_are() -> None:
    found = picture(png(256, 32))
    assert found is not None
    assert (found.width, found.height) == (256, 32)
    assert found.url.startswith("data:image/png;base64,")


def test_large_pictures_are_made_smaller() -> None:
    found = picture(png(2048, 512))
    assert found is not None
    assert (found.width, found.height) == (2048 * TALL // 512, TALL)
    assert found.url.startswith("data:image/jpeg;base64,")


def test_what_is_no_picture_or_a_bomb_is_left_out() -> None:
    bomb = bytearray(png(16, 16))
    bomb[16:24] = (MAX_PIXELS).to_bytes(4) + (2).to_bytes(4)
    assert picture(bytes(bomb)) is None
    assert picture(b"<svg onload=alert(1)>") is None
    assert picture(b"") is None


def test_new_slices_come_first_and_missing_grids_are_left_out() -> None:
    prompts = {name: [{"prompt": f"a {name}", "seed": 1}] for name in ("a", "b", "c")}
    files = {
        "prompts.json": json.dumps(prompts).encode(),
        "grid-a-champion.png": png(32, 32),
        "grid-b-candidate.png": png(32, 32),
    }
    found = pairs(files, fresh=["b"])
    assert [(pair.slice, pair.new, pair.captions) for pair in found] == [("b", True, ("a b",)), ("a", False, ("a a",))]
    assert (found[0].before, found[1].after) == (None, None)
    assert pairs({"prompts.json": b"{"}) == ()
