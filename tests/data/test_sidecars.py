"""What people bring beside and around their pictures: captions, kohya's folders, other columns, and what is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cl_steps.config import Ingest
from cl_steps.data.intake import Intake, take_in
from tests.data.hostile import counted
from tests.data.landings import encoded, fill, jsonl, picture, put


def take(folder: Path, **knobs: object) -> Intake:
    intake = take_in(folder, Ingest(**knobs), seed=0, run="r1")  # type: ignore[arg-type]
    assert counted(intake) == intake.landed.arrived
    return intake


def texts(intake: Intake) -> dict[str, str]:
    """Caption to slice."""
    rows = intake.assets.manifest.to_pylist()
    return {row["text"]: row["slice"] for row in rows}


def faults(intake: Intake) -> dict[str, str]:
    return {found.file: found.code for found in intake.quarantine}


def pictures(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        put(folder, name, encoded(picture(number)))


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("1.txt", b"a cat\n", "a cat"),
        ("1.caption", b"a cat", "a cat"),
        ("1.TXT", b"\xef\xbb\xbfa cat\r\n", "a cat"),
        ("1.txt", b"\n  a cat \nanother way to say it\n", "a cat"),
        ("1.json", b'{"caption": "a cat", "width": 5}', "a cat"),
    ],
)
def test_a_caption_beside_its_picture(tmp_path: Path, name: str, content: bytes, text: str) -> None:
    pictures(tmp_path, "1.jpg")
    put(tmp_path, name, content)
    intake = take(tmp_path)
    assert (texts(intake), faults(intake)) == ({text: "general"}, {})
    assert intake.landed.metadata == 1


def test_a_json_beside_a_picture_is_a_line_of_metadata(tmp_path: Path) -> None:
    pictures(tmp_path, "1.jpg")
    put(tmp_path, "1.json", json.dumps({"prompt": "a cat", "slice": "pets", "license": "CC0"}).encode())
    (row,) = take(tmp_path).assets.manifest.to_pylist()
    assert (row["text"], row["slice"], row["licence"]) == ("a cat", "pets", "CC0")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_caption"),
        (b" \n\t\n", "empty_caption"),
        (b"caf\xe9", "not_utf8"),
        ("a cat".encode("utf-16"), "not_utf8"),
        (b"a\x1b[31mred", "bad_caption"),
        (b"x" * 5000, "long_caption"),
    ],
)
def test_a_bad_caption_beside_is_its_pictures_fault(tmp_path: Path, content: bytes, code: str) -> None:
    pictures(tmp_path, "1.png", "2.png")
    put(tmp_path, "1.txt", content)
    put(tmp_path, "2.txt", b"fine")
    intake = take(tmp_path)
    assert (texts(intake), faults(intake)) == ({"fine": "general"}, {"1.png": code})


def test_bad_json_beside_names_its_file(tmp_path: Path) -> None:
    pictures(tmp_path, "1.png")
    put(tmp_path, "1.json", b"[" * 9000)
    (found,) = take(tmp_path).quarantine
    assert (found.code, found.reason[:27]) == ("bad_line", "of its caption in 1.json: t")


def test_metadata_counts_first_and_captions_beside_fill_its_gaps(tmp_path: Path) -> None:
    pictures(tmp_path, "0.png", "1.png", "2.png")
    for number in range(3):
        put(tmp_path, f"{number}.txt", f"beside {number}".encode())
    jsonl(tmp_path, {"file_name": "0.png", "text": "said", "slice": "a"}, {"file_name": "1.png", "slice": "b"})
    intake = take(tmp_path)
    assert texts(intake) == {"said": "a", "beside 1": "b", "beside 2": "general"}
    assert (faults(intake), intake.landed.metadata) == ({}, 4)


def test_what_is_no_picture_is_passed_over_and_counted_apart(tmp_path: Path) -> None:
    fill(tmp_path, range(2))
    others = {
        "texts": ("README.md", "notes.txt", "a.pdf"),
        "archives": ("images.zip", "more.7z"),
        "others": (
            "Thumbs.db",
            "LICENSE",
            "000.npz",
            "@eaDir/000.png/x.jpg",
            "__MACOSX/a.png",
            "x.safetensors",
            "data",
        ),
        "misnamed": ("metadata.json", "Metadata.jsonl", "captions.csv", "sub/metadata.jsonl.gz"),
        "videos": ("a.mp4",),
    }
    for names in others.values():
        for name in names:
            put(tmp_path, name, b"something")
    intake = take(tmp_path)
    assert (faults(intake), intake.counts["new"]) == ({}, 2)
    assert intake.landed.passed == {kind: len(names) for kind, names in sorted(others.items())}
    assert "passed over 2 archives: unpack them" in intake.landed.words()


def test_a_picture_of_another_name_is_a_picture(tmp_path: Path) -> None:
    pictures(tmp_path, "photo", "photo.0001")
    jsonl(tmp_path, {"file_name": "photo", "text": "named"})
    intake = take(tmp_path)
    assert (texts(intake), faults(intake)) == ({"named": "general"}, {"photo.0001": "no_caption"})


@pytest.mark.parametrize("name", ["a.zip", "0.txt", "notes.txt"])
def test_a_line_that_names_no_picture_is_the_lines_fault(tmp_path: Path, name: str) -> None:
    fill(tmp_path, range(1, 2))
    pictures(tmp_path, "0.png")
    put(tmp_path, name, b"x")
    put(tmp_path, "0.txt", b"a caption")
    jsonl(tmp_path, {"file_name": name, "text": "x"})
    assert faults(take(tmp_path)) == {"metadata.jsonl:2": "no_image"}


@pytest.mark.parametrize("junk", [b"x" * (2**20 + 1), b""])
def test_a_text_that_is_no_caption_is_never_called_an_image(tmp_path: Path, junk: bytes) -> None:
    put(tmp_path, "alone.txt", junk)
    intake = take(tmp_path)
    assert (intake.quarantine, intake.landed.passed) == ((), {"texts": 1})


def test_a_picture_and_its_caption_come_in_the_same_night(tmp_path: Path) -> None:
    for number in range(12):
        pictures(tmp_path, f"{number}.png")
        put(tmp_path, f"{number}.png", encoded(picture(number)))
        put(tmp_path, f"{number}.txt", f"picture {number}".encode())
    for most in range(1, 24):
        intake = take_in(tmp_path, Ingest(max_files=most), 0, f"r{most}")
        assert (faults(intake), intake.counts["new"]) == ({}, most // 2)
        assert counted(intake) == 24


def test_folders_of_kohya_are_slices_and_their_repeats_are_no(tmp_path: Path) -> None:
    pictures(tmp_path, "img/10_sks Dog/1.png", "img/10_sks Dog/2.png", "1_reg/3.png", "plain/4.png")
    put(tmp_path, "img/10_sks Dog/1.txt", b"a dog runs")
    put(tmp_path, "plain/4.txt", b"no slice of its own")
    intake = take(tmp_path)
    assert texts(intake) == {
        "a dog runs": "sks-dog",
        "sks Dog": "sks-dog",
        "reg": "reg",
        "no slice of its own": "general",
    }
    words = " ".join(intake.landed.words())
    assert "2 pictures lie in folders with repeats, which are not taken over" in words
    assert "2 pictures have no caption but the name of their folder" in words


def test_folders_are_slices_where_the_line_wants_it(tmp_path: Path) -> None:
    pictures(tmp_path, "Blue Ink/1.png", "\u58a8/2.png", "3.png", "Blue Ink/4.png")
    for name in ("Blue Ink/1", "\u58a8/2", "3", "Blue Ink/4"):
        put(tmp_path, f"{name}.txt", name.encode())
    jsonl(tmp_path, {"file_name": "Blue Ink/4.png", "slice": "own"})
    found = texts(take(tmp_path, slice_by_folder=True))
    assert found == {"Blue Ink/1": "blue-ink", "\u58a8/2": "general", "3": "general", "Blue Ink/4": "own"}


@pytest.mark.parametrize(
    "header", ["file_name, text", "file_name,caption", "FILE_NAME,Prompt", "image,description", " filename , text "]
)
def test_columns_as_people_call_them(tmp_path: Path, header: str) -> None:
    pictures(tmp_path, "0.png")
    put(
        tmp_path,
        "metadata.csv",
        f'{header}\n0.png, "one, two"\n'.encode() if ", " in header else f"{header}\n0.png,one\n".encode(),
    )
    intake = take(tmp_path)
    assert (list(texts(intake)), faults(intake)) == (["one, two" if ", " in header else "one"], {})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", b"file_name,label\n0.png,7\n1.png,8\n"),
        ("metadata.jsonl", b'{"file_name": "0.png", "label": 7}\n{"file_name": "1.png", "label": 8}\n'),
    ],
)
def test_columns_without_a_caption_are_one_fault_of_the_file(tmp_path: Path, name: str, content: bytes) -> None:
    pictures(tmp_path, "0.png", "1.png")
    put(tmp_path, name, content)
    intake = take(tmp_path)
    assert faults(intake) == {name: "bad_header", "0.png": "no_caption", "1.png": "no_caption"}
    (reason,) = (found.reason for found in intake.quarantine if found.file == name)
    assert "its columns are file_name, label, and one must be called text" in reason


def test_columns_without_a_caption_are_no_fault_where_captions_lie_beside(tmp_path: Path) -> None:
    pictures(tmp_path, "0.png")
    put(tmp_path, "0.txt", b"a caption")
    put(tmp_path, "metadata.csv", b"file_name,slice\n0.png,ink\n")
    intake = take(tmp_path)
    assert (texts(intake), faults(intake)) == ({"a caption": "ink"}, {})


def test_a_header_without_files_names_its_columns(tmp_path: Path) -> None:
    put(tmp_path, "metadata.csv", b"file_name;text\n0.png;x\n")
    (found,) = take(tmp_path).quarantine
    assert (found.code, "its columns are file_name;text" in found.reason) == ("bad_header", True)


def test_several_metadata_files_each_say_something(tmp_path: Path) -> None:
    pictures(tmp_path, "train/0.png", "test/1.png", "test/2.png", "3.png")
    jsonl(tmp_path, {"file_name": "train/0.png", "text": "above"}, {"file_name": "3.png", "text": "same folder"})
    put(tmp_path, "metadata.csv", b"file_name,text\ntest/1.png,in a table\n")
    jsonl(tmp_path / "test", {"file_name": "2.png", "text": "below"})
    intake = take(tmp_path)
    assert sorted(texts(intake)) == ["above", "below", "in a table", "same folder"]
    assert (faults(intake), intake.landed.metadata) == ({}, 3)
