"""Each thing that arrived is counted in one place, also where not all of it fits; what is set aside is few files."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cl_steps.acts.purge import take_out
from cl_steps.config import Ingest
from cl_steps.data import claims
from cl_steps.data.aside import write_quarantine
from cl_steps.data.intake import Intake, take_in
from cl_steps.data.quarantine import Quarantined
from tests.data.hostile import counted
from tests.data.landings import encoded, fill, jsonl, picture, put

LIMITS = Ingest(max_file_bytes=20_000)


def take(folder: Path, **bounds: int) -> Intake:
    intake = take_in(folder, LIMITS.model_copy(update=bounds), seed=0, run="r1")
    assert counted(intake) == intake.landed.arrived
    return intake


def kept(folder: Path) -> dict[str, bytes]:
    """What an intake keeps of its quarantine, by SHA-256."""
    rows = [row for file in sorted((folder / "quarantine").glob("*")) for row in pq.read_table(file).to_pylist()]
    return {row["sha256"]: row["bytes"] for row in rows}


def test_files_beyond_the_bound_are_said_and_their_lines_are_no_fault(tmp_path: Path) -> None:
    intake = take(fill(tmp_path, range(12)), max_files=5)
    assert (intake.counts["new"], intake.quarantine) == (4, ())
    assert dict(intake.landed.left) == {"files": 8}
    assert list(intake.landed.words()) == ["8 files more than ingest.max_files: left for another night"]


@pytest.mark.parametrize("bounds", [{"max_metadata_bytes": 100}, {"max_metadata_lines": 5}])
def test_what_waits_for_its_metadata_is_not_blamed(tmp_path: Path, bounds: dict[str, int]) -> None:
    fill(tmp_path / "large", range(12))
    fill(tmp_path / "small", range(20, 21))
    put(tmp_path, "elsewhere.png", encoded(picture(40)))
    intake = take(tmp_path, **bounds)
    assert (intake.counts["new"], dict(intake.landed.left)) == (1, {"metadata": 13})
    assert [(q.file, q.code) for q in intake.quarantine] == [("elsewhere.png", "no_caption")]


def test_hidden_files_and_metadata_are_counted_too(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    for name in (".git/config", ".DS_Store", "x/.dvcignore", "x/metadata.csv"):
        put(tmp_path, name, b"junk")
    put(tmp_path, ".named.png", encoded(picture(9)))
    jsonl(tmp_path, {"file_name": ".named.png", "text": "hidden and named"}, {"file_name": "x/metadata.csv"})
    intake = take(tmp_path)
    assert (intake.counts["new"], intake.landed.hidden, intake.landed.metadata, intake.landed.lines) == (4, 3, 1, 1)
    assert {(q.file, q.code) for q in intake.quarantine} == {
        ("metadata.jsonl:5", "no_image"),
        ("x/metadata.csv", "bad_header"),
    }


def test_thousands_of_bad_lines_are_one_file(tmp_path: Path) -> None:
    landing = fill(tmp_path / "landing", range(2))
    jsonl(landing, *(b"{%d" % number for number in range(5000)))
    intake = take(landing)
    intake.write(tmp_path / "out")
    assert (intake.counts["new"], intake.counts["quarantined"]) == (2, 5000)
    assert [path.name for path in (tmp_path / "out/quarantine").iterdir()] == ["bytes-00000.parquet"]
    rows = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines()]
    assert {row["sha256"] for row in rows} == kept(tmp_path / "out").keys()


def test_lines_without_end_are_summed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "MAX_TOLD", 10)
    landing = fill(tmp_path, range(2))
    jsonl(landing, *(b"{%d" % number for number in range(30)))
    put(landing, "sub/metadata.jsonl", b"[]\n" * 5)
    intake = take(landing)
    summed = {q.file: q.reason for q in intake.quarantine if not q.sha256}
    assert summed == {
        "metadata.jsonl:13": "20 lines from here on cannot be used: mend the file",
        "sub/metadata.jsonl:1": "5 lines from here on cannot be used: mend the file",
    }
    assert (intake.landed.lines, intake.counts["new"]) == (12, 2)


def test_what_stays_in_the_landing_is_kept_once(tmp_path: Path) -> None:
    put(tmp_path / "landing", "junk.png", b"junk")
    intake = take(tmp_path / "landing")
    assert intake.write(tmp_path / "first") == intake.write(tmp_path / "again", {intake.quarantine[0].key}) == 0
    assert (list(kept(tmp_path / "first").values()), kept(tmp_path / "again")) == ([b"junk"], {})


def test_no_more_is_kept_than_the_bound(tmp_path: Path) -> None:
    for number in range(6):
        put(tmp_path / "landing", f"{number}.png", bytes([number]) * 100)
    put(tmp_path / "landing", "copy.png", bytes(100))
    intake = take(tmp_path / "landing", max_quarantine_bytes=350)
    assert intake.write(tmp_path / "out") == 3
    assert len(kept(tmp_path / "out")) == 3
    assert len((tmp_path / "out/quarantine.jsonl").read_text().splitlines()) == 7


def test_what_is_kept_can_be_erased(tmp_path: Path) -> None:
    contents = [b"one", b"two"]
    names = [hashlib.sha256(content).hexdigest() for content in contents]
    rows = [Quarantined("f", "damaged", "", name, 3, content=c) for name, c in zip(names, contents, strict=True)]
    write_quarantine(tmp_path, rows, rows, max_bytes=100)
    take_out(tmp_path, {names[0]})
    assert kept(tmp_path) == {names[1]: b"two"}


def test_what_was_withdrawn_is_not_kept(tmp_path: Path) -> None:
    row = Quarantined("f", "withdrawn", "", hashlib.sha256(b"x").hexdigest(), 1, content=b"x")
    assert write_quarantine(tmp_path, [row], [row], max_bytes=100) == 0
    assert kept(tmp_path) == {}


def test_a_file_on_its_way_is_left_for_another_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoded(picture(40, 100), "JPEG")
    for name, content in (("half.jpg", whole[:900]), ("empty.jpg", b""), ("old.jpg", whole[:900]), ("all.jpg", whole)):
        put(tmp_path, name, content)
        put(tmp_path, name.replace("jpg", "txt"), name.encode())
    os.utime(tmp_path / "old.jpg", (0, 0))
    monkeypatch.setattr("cl_steps.landing.folder.now", time.time)
    intake = take(tmp_path)
    assert [(q.file, q.code) for q in intake.quarantine] == [("old.jpg", "damaged")]
    assert (intake.counts["new"], dict(intake.landed.left)) == (1, {"changed": 2})
    put(tmp_path, "half.jpg", whole[:-1] + whole[-1:] + b" ")
    assert take(tmp_path, settle_seconds=0).landed.left == {}
