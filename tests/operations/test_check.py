"""What a landing would give is said before anything is taken in: by reason, slice, caption and shape."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from cl_steps.config import Ingest, Params
from cl_steps.demo import nights
from cl_steps.errors import NoUsableData
from cl_steps.operations import first_state
from cl_steps.operations.check import check, check_text
from tests.data.landings import encoded, fill, jsonl, picture, put

BASE = Path(nights.__file__).parent / "base"


def look(place: object, base: Path | None = None, **knobs: Any) -> dict[str, Any]:
    return check(str(place), Params(ingest=Ingest(**knobs)), base)


def test_a_table_says_what_would_be_taken_and_why_the_rest_would_not(tmp_path: Path) -> None:
    fill(tmp_path, range(6))
    put(tmp_path, "copy.png", encoded(picture(0)))
    clear = Image.new("RGBA", (64, 32))
    clear.paste((200, 0, 0, 255), (0, 0, 32, 32))
    put(tmp_path, "clear.png", encoded(clear))
    for number in range(4):
        put(tmp_path, f"cut-{number}.png", encoded(picture(number))[:300])
        jsonl(tmp_path, {"file_name": f"cut-{number}.png", "text": "cut"})
    put(tmp_path, "alone.png", encoded(picture(9)))
    put(tmp_path, "README.md", b"x")
    jsonl(tmp_path, {"file_name": "copy.png", "text": "picture 0", "slice": "ink"})
    jsonl(tmp_path, {"file_name": "clear.png", "text": "a longer caption", "slice": "logo"})
    text = check_text(look(tmp_path))
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "15 files; nothing is taken in" in lines["arrived"]
    assert "7 pictures, 32x32 to 64x32: 6 of about 1:1, 1 of about 2:1; 1 transparent" in lines["would take"]
    assert "1 copies" in lines["the same"]
    assert "4 x damaged: the image is cut short" in lines["would not"]
    assert "(cut-0.png, cut-1.png, cut-2.png)" in lines["would not"]
    assert "1 x no_caption" in text
    assert "passed over 1 files of text" in text
    assert "6 pictures (" in lines["slice ink"]
    assert "9 to 16 characters, half of them up to 9; name the base" in lines["captions"]


def test_whether_a_slice_has_enough_for_the_gate(tmp_path: Path) -> None:
    fill(tmp_path, range(60))
    fill(tmp_path, range(60, 70), "few", "f")
    slices = look(tmp_path)["slices"]
    assert (slices["ink"]["pictures"], slices["ink"]["needs"]) == (60, 0)
    assert slices["ink"]["held_out"] >= 8
    assert slices["few"]["needs"] == -(-(8 - slices["few"]["held_out"]) // (0.3 * 0.9))
    assert look(tmp_path, evaluation_share=0.01, probe_share=0.01)["slices"]["ink"]["needs"] > 500


def test_captions_are_measured_by_what_the_base_reads(tmp_path: Path) -> None:
    put(tmp_path, "a.png", encoded(picture(1)))
    put(tmp_path, "a.txt", b"a digit drawn in black ink " * 9)
    put(tmp_path, "b.png", encoded(picture(2)))
    put(tmp_path, "b.txt", b"a digit")
    assert look(tmp_path, BASE)["captions"]["cut"] == 1
    assert "1 are longer than the base reads" in check_text(look(tmp_path, BASE))


def test_an_empty_landing_is_said(tmp_path: Path) -> None:
    text = check_text(look(tmp_path))
    assert "0 files" in text
    assert "captions" not in text


def test_a_first_landing_without_anything_usable_says_why(tmp_path: Path) -> None:
    for number in range(5):
        put(tmp_path, f"{number}.png", encoded(Image.new("LA", (32, 32))))
        put(tmp_path, f"{number}.txt", b"a logo")
    put(tmp_path, "x.zip", b"x")
    with pytest.raises(NoUsableData) as caught:
        first_state._take(str(tmp_path), Params())
    said = str(caught.value)
    assert "5 x nothing of the image is to be seen on white: flatten it" in said
    assert "(as '0.png')" in said
    assert "passed over 1 archives: unpack them" in said
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(NoUsableData, match="it is empty"):
        first_state._take(str(tmp_path), Params())


class Hub(MemoryFileSystem):  # type: ignore[misc]
    """What the hub's file system shows of data sets, without the hub."""

    protocol = "hf"
    store: dict[str, Any] = {}  # noqa: RUF012  (as its parent has it)
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("hf://")))


@pytest.fixture
def hub() -> Iterator[Hub]:
    before = fsspec.get_filesystem_class("hf")
    fsspec.register_implementation("hf", Hub, clobber=True)
    Hub.store.clear()
    yield Hub()
    fsspec.register_implementation("hf", before, clobber=True)


@pytest.mark.parametrize("url", ["hf://ann/cats", "hf://datasets/ann/cats"])
def test_a_data_set_of_the_hub_is_a_landing_and_none_of_its_code_is_run(tmp_path: Path, hub: Hub, url: str) -> None:
    fill(tmp_path / "cats", range(3))
    put(tmp_path / "cats", "cats.py", b"raise SystemExit")
    hub.put(str(tmp_path / "cats"), "/datasets/ann/cats", recursive=True)
    shutil.rmtree(tmp_path / "cats")
    found = look(url)
    assert (found["counts"]["new"], found["refused"]) == (3, [])
    assert found["notes"] == ["passed over 1 files of other kinds"]


def test_a_data_set_that_is_not_there(hub: Hub) -> None:
    with pytest.raises(NoUsableData, match="hf://ann/none is not there"):
        look("hf://ann/none")
