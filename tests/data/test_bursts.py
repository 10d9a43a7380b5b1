"""Pictures of one thing within seconds are one unit; a clock that stands still makes none of its pictures one."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cl_steps.config import Ingest
from cl_steps.data.bursts import MAX_BURST, bursts
from cl_steps.data.intake import Intake, take_in
from tests.data.landings import encoded, jsonl, picture, put


def at(second: int) -> str:
    return f"2026-01-02T03:{second // 60:02d}:{second % 60:02d}"


def found(*rows: tuple[str, str]) -> list[list[int]]:
    return list(bursts([source for source, _ in rows], [moment for _, moment in rows]))


def test_a_burst_is_a_chain_of_seconds_of_one_source() -> None:
    rows = [("a", at(0)), ("b", at(1)), ("a", at(4)), ("a", at(2)), ("a", at(7)), ("b", at(9)), ("a", "")]
    assert found(*rows) == [[0, 3, 2]]
    assert found(("", at(0)), ("", at(2))) == [[0, 1]]
    assert found(("", at(0)), ("", at(3)), ("", "no time"), ("", "no time")) == []


@pytest.mark.parametrize(("number", "is_one"), [(MAX_BURST, True), (MAX_BURST + 1, False)])
def test_a_row_without_end_is_no_burst(number: int, is_one: bool) -> None:
    assert bool(found(*[("a", at(0))] * number)) is is_one


def shot(folder: Path, number: int, second: int, source: str = "ann", kind: str = "JPEG") -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    exif.get_ifd(0x8769)[0x9003] = at(second).replace("-", ":").replace("T", " ")
    put(folder, f"{number}.img", encoded(picture(number), kind, exif=exif))
    jsonl(folder, {"file_name": f"{number}.img", "text": f"picture {number}", "source": source})


def groups(intake: Intake) -> dict[str, set[int]]:
    by_group: dict[str, set[int]] = {}
    for row in intake.assets.manifest.to_pylist():
        by_group.setdefault(row["group"], set()).add(int(row["text"].split()[1]))
    return by_group


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_burst_is_one_group_on_one_side(tmp_path: Path, kind: str) -> None:
    for number in range(4):
        shot(tmp_path, number, 10 + number, kind=kind)
    shot(tmp_path, 4, 11, source="bob", kind=kind)
    shot(tmp_path, 5, 40, kind=kind)
    intake = take_in(tmp_path, Ingest(), 0, "r-1")
    assert sorted(map(sorted, groups(intake).values())) == [[0, 1, 2, 3], [4], [5]]
    assert intake.counts["near_duplicates"] == 3
    rows = {row["text"]: row for row in intake.assets.manifest.to_pylist()}
    assert len({row["split"] for row in rows.values() if row["text"] in {f"picture {n}" for n in range(4)}}) == 1
    assert rows["picture 2"]["taken"] == at(12)


def test_the_rest_of_a_burst_that_comes_later_goes_where_the_first_went(tmp_path: Path) -> None:
    for number in range(12):
        shot(tmp_path / "a", number, 10 * number)
    first = take_in(tmp_path / "a", Ingest(), 0, "r-1").assets.manifest
    home = next(row for row in first.to_pylist() if row["split"] == "evaluation")
    shot(tmp_path / "b", 20, 10 * int(home["text"].split()[1]) + 1)
    (row,) = take_in(tmp_path / "b", Ingest(), 0, "r-2", first).assets.manifest.to_pylist()
    assert (row["group"], row["split"]) == (home["group"], "evaluation")


def test_a_moment_that_is_none_is_left_aside(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    exif.get_ifd(0x8769)[0x9003] = "0000:00:00 00:00:00"
    for number in range(2):
        put(tmp_path, f"{number}.png", encoded(picture(number), exif=exif))
        put(tmp_path, f"{number}.txt", b"picture %d" % number)
    intake = take_in(tmp_path, Ingest(), 0, "r-1")
    assert set(intake.assets.manifest["taken"].to_pylist()) == {""}
    assert len(groups(intake)) == 2
