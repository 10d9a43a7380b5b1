"""What lands in the landing folder: the promised counts, from the seed alone, no stroke twice within a style."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cl_steps.demo.broken import HOSTILE_TEXT, bomb
from cl_steps.demo.drawing import BASE_STYLES, HELD_OUT, STYLES
from cl_steps.demo.nights import order_of, write_initial, write_night

KEYS = {"file_name", "text", "slice", "source", "licence", "consent"}


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def decode(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def mode_of(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nights")
    write_initial(root / "0", seed=7)
    for night in (1, 2, 3, 4):
        write_night(root / str(night), night, seed=7)
    return root


@pytest.mark.parametrize(
    ("night", "counts"),
    [
        ("0", dict.fromkeys(BASE_STYLES, 150)),
        ("1", dict.fromkeys(BASE_STYLES, 40)),
        ("2", {"neon-ink": 300}),
        ("3", {"white-chalk": 300}),
    ],
)
def test_sound_nights_hold_what_they_promise(nights: Path, night: str, counts: dict[str, int]) -> None:
    lines = lines_of(nights / night)
    assert Counter(line["slice"] for line in lines) == counts
    for line in lines:
        assert set(line) == KEYS
        assert STYLES[line["slice"]] in line["text"]
        with Image.open(nights / night / line["file_name"]) as image:
            assert (image.size, image.mode, image.format) == ((32, 32), "RGB", "PNG")
    assert len(list((nights / night).glob("*.png"))) == len(lines)


def test_no_stroke_is_drawn_twice_in_a_style() -> None:
    for style in STYLES:
        assert sorted(order_of(style, 7)) == sorted(HELD_OUT)


def test_no_name_is_given_twice_in_a_style(nights: Path) -> None:
    names = [line["file_name"] for night in "0123" for line in lines_of(nights / night)]
    assert len(set(names)) == len(names)


def test_the_seed_decides_everything(nights: Path, tmp_path: Path) -> None:
    write_night(tmp_path / "again", 4, seed=7)
    write_night(tmp_path / "other", 4, seed=8)
    again, other, first = ({p.name: p.read_bytes() for p in f.iterdir()}
                           for f in (tmp_path / "again", tmp_path / "other", nights / "4"))  # fmt: skip
    assert first == again
    assert first != other


def test_the_fourth_night_is_poisoned(nights: Path) -> None:
    lines = lines_of(nights / "4")
    kinds = Counter(line["file_name"].split("-")[0] for line in lines)
    assert (kinds["noise"], kinds["wrong"]) == (40, 60)
    assert {line["slice"] for line in lines} == set(BASE_STYLES)
    named = {line["file_name"] for line in lines}
    assert "../../outside.png" in named
    assert "without-a-line.png" not in named
    assert (nights / "4" / "without-a-line.png").exists()
    assert [line["file_name"] for line in lines if "text" not in line] == ["without-a-caption.png"]
    assert [line["file_name"] for line in lines if line.get("text") == HOSTILE_TEXT] == ["hostile-caption.png"]


def test_the_fourth_night_stays_inside_its_folder(nights: Path) -> None:
    assert sorted(path.name for path in nights.iterdir()) == ["0", "1", "2", "3", "4"]
    assert not (nights / "4" / "../../outside.png").exists()


def test_broken_files_are_broken_in_the_way_their_names_say(nights: Path) -> None:
    folder = nights / "4"
    for name in ("cut-short.png", "empty.png", "text.png"):
        with pytest.raises(OSError, match=r"truncated|cannot identify"):
            decode(folder / name)
    for name, frames in (("moving.gif", 3), ("moving.png", 3)):
        with Image.open(folder / name) as image:
            assert getattr(image, "n_frames", 1) == frames
    assert [mode_of(folder / name) for name in ("inks.jpg", "sixteen-bits.png")] == ["CMYK", "I;16"]


def test_the_bomb_is_small_until_it_is_opened(nights: Path) -> None:
    assert len(bomb()) < 1000
    with pytest.raises(Image.DecompressionBombError):
        Image.open(nights / "4" / "bomb.png")


def test_there_is_no_fifth_night(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no night 5"):
        write_night(tmp_path, 5, seed=0)
