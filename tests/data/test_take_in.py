"""Every kind of bad input is quarantined by its own code, and the others go on."""

from __future__ import annotations

import io
import json
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFile

from cl_steps.config import Ingest
from cl_steps.data.intake import Intake, take_in
from cl_steps.data.shards import read_assets, read_manifest
from cl_steps.data.withdrawn import Withdrawn, tombstone
from cl_steps.errors import NoUsableData, Unavailable
from tests.data.landings import encoded, fill, jsonl, picture, put, table

LIMITS = Ingest(max_file_bytes=200_000, max_pixels=90_000, max_caption_characters=100)
GOOD = range(3)


def take(folder: Path, params: Ingest = LIMITS) -> Intake:
    return take_in(folder, params, seed=0, run="r1")


def bad_image(content: bytes) -> Callable[[Path], None]:
    def add(folder: Path) -> None:
        put(folder, "bad.png", content)
        jsonl(folder, {"file_name": "bad.png", "text": "bad"})

    return add


def bad_line(*lines: object) -> Callable[[Path], None]:
    def add(folder: Path) -> None:
        put(folder, "bad.png", encoded(picture(99)))
        jsonl(folder, *lines)  # type: ignore[arg-type]

    return add


def claim(**values: object) -> dict[str, object]:
    return {"file_name": "bad.png", "text": "a caption", **values}


def png_declaring(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header declares a huge image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


def animated(kind: str) -> bytes:
    return encoded(picture(50), kind, save_all=True, append_images=[picture(51)], duration=100)


def transparent(alpha: int) -> Image.Image:
    image = picture(60).convert("RGBA")
    image.putpixel((3, 3), (0, 0, 0, alpha))
    return image


IMAGES = {
    "empty": (b"", "empty_file"),
    "text": (b"hello, I am no image", "not_an_image"),
    "gif": (encoded(picture(70), "GIF"), "not_an_image"),
    "tiff": (encoded(picture(70), "TIFF"), "not_an_image"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n", "not_an_image"),
    "truncated png": (encoded(picture(71))[:400], "damaged"),
    "truncated jpeg": (encoded(picture(71, 200), "JPEG")[:900], "damaged"),
    "truncated webp": (encoded(picture(71), "WEBP", lossless=True)[:200], None),
    "only a header": (encoded(picture(71))[:8], None),
    "a flipped byte": (bytes(b ^ 255 if i == 600 else b for i, b in enumerate(encoded(picture(71)))), "damaged"),
    "declares 100 million": (png_declaring(10_000, 10_000), "too_many_pixels"),
    "declares 4 thousand million": (png_declaring(2**31 - 1, 2), "too_many_pixels"),
    "over max_pixels": (encoded(picture(72, 301)), "too_many_pixels"),
    "over max_file_bytes": (b"\x89PNG" + bytes(200_001), "too_large"),
    "apng": (animated("PNG"), "animated"),
    "animated webp": (animated("WEBP"), "animated"),
    "cmyk": (encoded(picture(73).convert("CMYK"), "JPEG"), "cmyk"),
    "more than sixteen bits": (encoded(Image.fromarray(np.full((32, 32), 9, np.float32)), "TIFF"), "not_an_image"),
    "nothing to see": (encoded(Image.new("LA", (32, 32))), "transparent"),
    "a strip": (encoded(picture(74).crop((0, 0, 20, 200))), "extreme_shape"),
    "too small": (encoded(picture(74).crop((0, 0, 15, 200))), "too_small"),
}


@pytest.mark.parametrize(("content", "code"), IMAGES.values(), ids=IMAGES.keys())
def test_a_bad_image_is_quarantined_and_the_others_go_on(tmp_path: Path, content: bytes, code: str | None) -> None:
    fill(tmp_path, GOOD)
    bad_image(content)(tmp_path)
    intake = take(tmp_path)
    assert intake.counts["new"] == len(GOOD)
    (found,) = intake.quarantine
    assert found.file == "bad.png"
    assert found.code in ({code} if code else {"damaged", "not_an_image"})
    assert found.num_bytes == len(content)
    assert found.reason.isprintable()


LINES = {
    "no json": ('{"file_name": "bad.png", ', "bad_line"),
    "a list": ('["bad.png"]', "bad_line"),
    "deeply nested": ("[" * 100_000, "bad_line"),
    "endless line": ('{"file_name": "bad.png", "text": "x", "more": "' + "y" * 2**23 + '"}', "bad_line"),
    "not utf-8": (b'{"file_name": "bad.png", "text": "caf\xe9"}', "not_utf8"),
    "no file_name": ({"text": "a caption"}, "no_file_name"),
    "empty file_name": (claim(file_name=""), "no_file_name"),
    "a number for a file": (claim(file_name=3), "bad_type"),
    "absolute": (claim(file_name="/etc/passwd"), "unsafe_path"),
    "upwards": (claim(file_name="../bad.png"), "unsafe_path"),
    "upwards in between": (claim(file_name="a/../../bad.png"), "unsafe_path"),
    "windows": (claim(file_name="a\\bad.png"), "unsafe_path"),
    "drive": (claim(file_name="C:/bad.png"), "unsafe_path"),
    "endless": (claim(file_name="a" * 5000), "unsafe_path"),
    "nul": (claim(file_name="bad\0.png"), "bad_name"),
    "lone surrogate": ('{"file_name": "\\ud800.png", "text": "x"}', "bad_name"),
    "no such file": (claim(file_name="gone.png"), "missing_file"),
    "a folder": (claim(file_name="."), "missing_file"),
}


@pytest.mark.parametrize(("line", "code"), LINES.values(), ids=LINES.keys())
def test_a_bad_line_is_quarantined_with_its_number_and_the_others_go_on(
    tmp_path: Path, line: object, code: str
) -> None:
    fill(tmp_path, GOOD)
    bad_line(line)(tmp_path)
    intake = take(tmp_path)
    assert intake.counts["new"] == len(GOOD)
    by_file = {found.file: found.code for found in intake.quarantine}
    assert by_file == {"metadata.jsonl:4": code, "bad.png": "no_caption"}


CAPTIONS = {
    "missing": ({"file_name": "bad.png"}, "no_caption"),
    "null": (claim(text=None), "no_caption"),
    "empty": (claim(text=" \t "), "empty_caption"),
    "too long": (claim(text="x" * 101), "long_caption"),
    "a number": (claim(text=5), "bad_type"),
    "not a number": ('{"file_name": "bad.png", "text": NaN}', "bad_type"),
    "escape sequence": (claim(text="a\x1b[31mred"), "bad_caption"),
    "nul": (claim(text="a\0b"), "bad_caption"),
    "turned direction": (claim(text="a\u202egnp.exe"), "bad_caption"),
    "lone surrogate": ('{"file_name": "bad.png", "text": "\\udfff"}', "bad_caption"),
    "never a character": (claim(text="a\ufdd0b"), "bad_caption"),
    "the last of a plane": (claim(text="a\U0001ffffb"), "bad_caption"),
    "a text of texts": (claim(text=[["x"]]), "bad_type"),
    "a list of slices": (claim(slice=["a"]), "bad_type"),
    "slice in capitals": (claim(slice="Ink"), "bad_slice"),
    "slice with a path": (claim(slice="../ink"), "bad_slice"),
    "slice with a newline": (claim(slice="ink\n"), "bad_slice"),
    "slice too long": (claim(slice="a" * 62), "bad_slice"),
    "consent as truth": (claim(consent=True), "bad_type"),
    "endless source": (claim(source="x" * 501), "bad_fact"),
}


@pytest.mark.parametrize(("line", "code"), CAPTIONS.values(), ids=CAPTIONS.keys())
def test_a_bad_caption_is_quarantined_with_its_image_and_the_others_go_on(
    tmp_path: Path, line: object, code: str
) -> None:
    fill(tmp_path, GOOD)
    bad_line(line)(tmp_path)
    intake = take(tmp_path)
    assert intake.counts["new"] == len(GOOD)
    (found,) = intake.quarantine
    assert (found.file, found.code, len(found.sha256)) == ("bad.png", code, 64)


def link_to_a_file(folder: Path) -> None:
    (folder / "bad.png").symlink_to(folder / "000.png")


def link_to_a_folder(folder: Path) -> None:
    put(folder.parent / "elsewhere", "000.png", encoded(picture(1)))
    (folder / "bad.png").symlink_to(folder.parent / "elsewhere", target_is_directory=True)


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "bad.png")


def unnamed(folder: Path) -> None:
    put(folder, "bad.png", encoded(picture(99)))


@pytest.mark.parametrize(
    ("add", "code"),
    [(link_to_a_file, "symlink"), (link_to_a_folder, "symlink"), (pipe, "not_a_file"), (unnamed, "no_caption")],
)
def test_what_is_no_plain_named_file_is_quarantined(tmp_path: Path, add: Callable[[Path], None], code: str) -> None:
    landing = fill(tmp_path / "landing", GOOD)
    add(landing)
    intake = take(landing)
    assert intake.counts["new"] == len(GOOD)
    assert [(found.file, found.code) for found in intake.quarantine] == [("bad.png", code)]


def test_names_that_are_no_text_are_quarantined_and_printable(tmp_path: Path) -> None:
    fill(tmp_path, GOOD)
    for name in (b"a\nb.png", b"caf\xe9.png", "x\u202egnp".encode()):
        (tmp_path / os.fsdecode(name)).write_bytes(encoded(picture(9)))
    intake = take(tmp_path)
    assert [found.code for found in intake.quarantine] == ["bad_name"] * 3
    assert all(found.file.isprintable() for found in intake.quarantine)
    intake.write(tmp_path / "out")


def test_a_file_that_becomes_a_link_while_we_read_is_not_followed(tmp_path: Path) -> None:
    landing = fill(tmp_path / "landing", GOOD)
    secret = put(tmp_path, "secret.png", encoded(picture(77)))
    intake = take(landing)
    (landing / "000.png").unlink()
    (landing / "000.png").symlink_to(secret)
    with pytest.raises(Unavailable):
        intake.write(tmp_path / "out")


def test_the_first_of_two_lines_for_one_file_counts(tmp_path: Path) -> None:
    fill(tmp_path, GOOD)
    jsonl(tmp_path, {"file_name": "./000.png", "text": "something else"})
    intake = take(tmp_path)
    assert [(found.file, found.code) for found in intake.quarantine] == [("metadata.jsonl:4", "duplicate_line")]
    assert "picture 0" in intake.assets.manifest["text"].to_pylist()


def test_metadata_in_subfolders_and_csv_and_accents(tmp_path: Path) -> None:
    fill(tmp_path / "one", range(2))
    put(tmp_path, "two/deep/cafe\u0301.png", encoded(picture(5)))
    put(tmp_path, "two/loose.png", encoded(picture(6)))
    rows = {"file_name": "two/deep/caf\u00e9.png", "text": 'a "quoted"\nline', "slice": "", "license": "CC0"}
    table(tmp_path, rows, rows | {"file_name": "gone.png"})
    put(tmp_path, ".DS_Store", b"junk")
    intake = take(tmp_path)
    assert [(q.file, q.code) for q in intake.quarantine] == [
        ("metadata.csv:4", "missing_file"),
        ("two/loose.png", "no_caption"),
    ]
    rows = next(row for row in intake.assets.manifest.to_pylist() if row["slice"] == "general")
    assert (rows["text"], rows["licence"]) == ('a "quoted" line', "CC0")
    assert intake.counts["new"] == 3


@pytest.mark.parametrize(
    ("content", "code", "where"),
    [
        (b"name,text\n000.png,x\n", "bad_header", "metadata.csv"),
        ("file_name,text\n000.png,x\n".encode("utf-16"), "not_utf8", "metadata.csv"),
        (b"file_name,text\n000.png\n", "bad_line", "metadata.csv:2"),
        (b"file_name,text\n000.png,x,y\n", "bad_line", "metadata.csv:2"),
        (b'file_name,text\n000.png,"x\n', "bad_line", "metadata.csv:2"),
        (b"file_name,text\n000.png,caf\xe9\n", "not_utf8", "metadata.csv:2"),
        (b"file_name,text\n000.png," + b"x" * 150_000 + b"\n", "bad_line", "metadata.csv:2"),
    ],
)
def test_bad_csv(tmp_path: Path, content: bytes, code: str, where: str) -> None:
    put(tmp_path, "000.png", encoded(picture(0)))
    put(tmp_path, "001.png", encoded(picture(1)))
    put(tmp_path, "metadata.csv", content)
    jsonl(tmp_path, {"file_name": "001.png", "text": "fine"})
    intake = take(tmp_path)
    assert intake.counts["new"] == 1
    assert {(q.file, q.code) for q in intake.quarantine} == {(where, code), ("000.png", "no_caption")}


def test_a_bad_row_of_csv_does_not_take_the_next_with_it(tmp_path: Path) -> None:
    for number in range(2):
        put(tmp_path, f"{number}.png", encoded(picture(number)))
    put(tmp_path, "metadata.csv", b"\xef\xbb\xbffile_name,text\r\n0.png,a,b\r\n\r\n1.png,fine\r\n")
    intake = take(tmp_path)
    assert intake.assets.manifest["text"].to_pylist() == ["fine"]


def test_captions_are_normalised(tmp_path: Path) -> None:
    put(tmp_path, "0.png", encoded(picture(0)))
    jsonl(tmp_path, {"file_name": "0.png", "text": "  cafe\u0301\n  au\u00a0lait \U0001f469\u200d\U0001f373 "})
    (text,) = take(tmp_path).assets.manifest["text"].to_pylist()
    assert text == "caf\u00e9 au lait \U0001f469\u200d\U0001f373"


@pytest.mark.parametrize("word", ["\U0001fae9", "\uf8ff", "\U0003fffd", "\u2068\u05d0\u2069", "\U000e0067"])
def test_no_verdict_depends_on_what_python_knows_of_unicode(tmp_path: Path, word: str) -> None:
    """An emoji of Unicode 16, a maker's own sign, one of some day, a word kept apart, a flag's tag."""
    put(tmp_path, f"{word}.png", encoded(picture(0)))
    jsonl(tmp_path, {"file_name": f"{word}.png", "text": f"a {word}"})
    intake = take(tmp_path)
    assert (intake.quarantine, intake.assets.manifest["text"].to_pylist()) == ((), [f"a {word}"])


@pytest.mark.parametrize(
    ("kind", "options", "image"),
    [
        ("PNG", {}, picture(1)),
        ("JPEG", {}, picture(2)),
        ("WEBP", {}, picture(3)),
        ("BMP", {}, picture(4)),
        ("PNG", {}, picture(5).convert("L")),
        ("PNG", {}, picture(6).convert("1")),
        ("PNG", {}, picture(7).convert("P")),
        ("PNG", {}, transparent(255)),
        ("PNG", {}, transparent(100)),
        ("WEBP", {"lossless": True}, transparent(100)),
        ("PNG", {"transparency": 3}, picture(61).convert("P")),
        ("PNG", {}, Image.fromarray(np.full((32, 32), 40_000, np.uint16))),
        ("AVIF", {}, picture(12)),
        ("PNG", {}, picture(8).convert("LA")),
        ("MPO", {"save_all": True, "append_images": [picture(9)]}, picture(10)),
        ("JPEG", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"}, picture(11)),
    ],
)
def test_every_kind_of_good_image_is_taken_in(
    tmp_path: Path, kind: str, options: dict[str, object], image: Image.Image
) -> None:
    put(tmp_path, "0.img", encoded(image, kind, **options))
    jsonl(tmp_path, {"file_name": "0.img", "text": "fine"})
    intake = take(tmp_path)
    assert (intake.counts["new"], intake.quarantine) == (1, ())


def test_a_bomb_is_refused_without_allocating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("no pixel may be decoded"))
    bad_image(png_declaring(13_000, 13_000))(tmp_path)
    tracemalloc.start()
    intake = take_in(tmp_path, Ingest(), seed=0, run="r1")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [found.code for found in intake.quarantine] == ["too_many_pixels"]
    assert peak < 5 * 2**20


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "bad.png").open("wb") as file:
        file.truncate(2**40)
    jsonl(tmp_path, {"file_name": "bad.png", "text": "x"})
    (found,) = take(tmp_path).quarantine
    assert (found.code, found.sha256, found.num_bytes) == ("too_large", "", 2**40)


def test_no_landing(tmp_path: Path) -> None:
    with pytest.raises(NoUsableData, match="landing"):
        take(tmp_path / "nowhere")


def test_an_empty_landing_gives_an_empty_intake(tmp_path: Path) -> None:
    (tmp_path / "landing").mkdir()
    intake = take(tmp_path / "landing")
    intake.write(tmp_path / "out")
    assert set(intake.counts.values()) == {0}
    assert read_manifest(tmp_path / "out").num_rows == 0


def test_quarantined_bytes_are_kept_by_digest(tmp_path: Path) -> None:
    landing = fill(tmp_path / "landing", GOOD)
    bad_image(b"junk")(landing)
    jsonl(landing, "{broken")
    take(landing).write(tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == ["bad.png", "metadata.jsonl:5"]
    kept = pq.read_table(tmp_path / "out/quarantine/bytes-00000.parquet").to_pylist()
    assert {row["sha256"]: row["bytes"] for row in kept} == {
        rows[0]["sha256"]: b"junk",
        rows[1]["sha256"]: b"{broken",
    }
    assert all(set(row) == {"file", "sha256", "code", "reason", "bytes"} for row in rows)


def test_same_bytes_with_the_same_caption_are_counted_and_with_another_are_quarantined(tmp_path: Path) -> None:
    fill(tmp_path, GOOD)
    for name, text in (("x.png", "picture 0"), ("y.png", "another caption")):
        put(tmp_path, name, encoded(picture(0)))
        jsonl(tmp_path, {"file_name": name, "text": text, "slice": "ink"})
    intake = take(tmp_path)
    assert (intake.counts["new"], intake.counts["duplicates"]) == (3, 1)
    assert [(q.file, q.code) for q in intake.quarantine] == [("y.png", "caption_conflict")]


def test_known_assets_are_counted_whatever_their_caption_is_now(tmp_path: Path) -> None:
    first = take(fill(tmp_path / "a", GOOD))
    fill(tmp_path / "b", range(4))
    (tmp_path / "b/metadata.jsonl").unlink()
    jsonl(tmp_path / "b", {"file_name": "003.png", "text": "new"})
    second = take_in(tmp_path / "b", LIMITS, 0, "r2", first.assets.manifest)
    assert (second.counts["known"], second.counts["new"], second.counts["quarantined"]) == (3, 1, 0)


def test_copies_of_withdrawn_assets_are_refused(tmp_path: Path) -> None:
    first = take(fill(tmp_path / "a", GOOD)).assets
    gone = next(row for row in first.manifest.to_pylist() if row["text"] == "picture 1")
    fill(tmp_path / "b", range(5))
    put(tmp_path / "b", "copy.jpg", encoded(picture(1).resize((48, 48)), "JPEG", quality=85))
    jsonl(tmp_path / "b", {"file_name": "copy.jpg", "text": "back again"})
    withdrawn = Withdrawn.of([tombstone(gone)])
    second = take_in(tmp_path / "b", LIMITS, 0, "r2", first.manifest, withdrawn=withdrawn)
    assert [(q.file, q.code) for q in second.quarantine] == [("001.png", "withdrawn"), ("copy.jpg", "withdrawn")]
    assert (second.counts["known"], second.counts["new"]) == (2, 2)


def test_a_newcomer_near_a_known_asset_inherits_its_group_and_split(tmp_path: Path) -> None:
    first = take(fill(tmp_path / "a", range(30))).assets.manifest
    assert set(first["split"].to_pylist()) == {"train", "probe", "evaluation"}
    for number in range(30):
        name = f"{number}.jpg"
        put(tmp_path / "b", name, encoded(picture(number).resize((48, 48)), "JPEG", quality=85))
        jsonl(tmp_path / "b", {"file_name": name, "text": f"picture {number}", "slice": "other"})
    second = take_in(tmp_path / "b", LIMITS, 1, "r2", first)
    places = [
        {row["text"]: (row["group"], row["split"], row["sealed"]) for row in manifest.to_pylist()}
        for manifest in (first, second.assets.manifest)
    ]
    assert places[0] == places[1]
    assert second.counts["near_duplicates"] == 30


def test_near_duplicates_of_one_night_share_a_group(tmp_path: Path) -> None:
    fill(tmp_path, range(12))
    for number in range(12):
        put(tmp_path, f"{number}.jpg", encoded(picture(number), "JPEG", quality=85))
        jsonl(tmp_path, {"file_name": f"{number}.jpg", "text": "again"})
    intake = take(tmp_path)
    rows = intake.assets.manifest.to_pylist()
    groups: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    assert [len(group) for group in groups.values()] == [2] * 12
    assert all(name == min(str(row["sha256"]) for row in group) for name, group in groups.items())
    assert all(len({row["split"] for row in group}) == 1 for group in groups.values())
    assert intake.counts["near_duplicates"] == 12


def test_a_newcomer_between_two_known_groups_goes_to_the_evaluated_one(tmp_path: Path) -> None:
    first = take(fill(tmp_path / "a", range(2))).assets.manifest
    rows = first.to_pylist()
    near = [row | {"dhash": rows[0]["dhash"], "thumbnail": rows[0]["thumbnail"]} for row in rows]
    near[0]["split"], near[1]["split"] = "train", "evaluation"
    known = type(first).from_pylist(near, schema=first.schema)
    name = "000.png" if rows[0]["text"] == "picture 0" else "001.png"
    image = Image.open(io.BytesIO((tmp_path / "a" / name).read_bytes()))
    put(tmp_path / "b", "n.bmp", encoded(image, "BMP"))
    jsonl(tmp_path / "b", {"file_name": "n.bmp", "text": "between"})
    (row,) = take_in(tmp_path / "b", LIMITS, 0, "r2", known).assets.manifest.to_pylist()
    assert (row["split"], row["group"]) == ("evaluation", near[1]["group"])


def test_the_same_landing_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = []
    for name, order in (("a", range(20)), ("b", reversed(range(20)))):
        landing = tmp_path / name
        for number in order:
            put(landing, f"{number}.png", encoded(picture(number)))
        for number in range(20):
            jsonl(landing, {"file_name": f"{number}.png", "text": f"picture {number}"})
        bad_image(b"junk")(landing)
        out = tmp_path / f"out-{name}"
        take(landing).write(out)
        digests.append({str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()})
    assert digests[0] == digests[1]
    assert len(read_assets(tmp_path / "out-a")) == 20
