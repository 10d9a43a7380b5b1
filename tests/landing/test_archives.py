"""Archives are folders of a landing: opened in a process of their own, within bounds, hostile or not."""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cl_steps.config import Ingest
from cl_steps.data.intake import Intake, take_in
from cl_steps.landing import archives
from cl_steps.landing.entries import Entry
from cl_steps.landing.folder import Folder
from cl_steps.landing.snapshot import Snapshot, take_snapshot
from tests.data.hostile import counted
from tests.data.landings import encoded, fill, picture, put

FEW = Ingest(max_file_bytes=100_000)


def tar_of(members: Mapping[str, bytes], *odd: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in odd:
            tar.addfile(info)
    return buffer.getvalue()


def parquet_of(table: pa.Table, **options: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def images(number: int, **columns: list[object]) -> pa.Table:
    """As Hugging Face's `Image` has it."""
    cells = [{"bytes": encoded(picture(n)), "path": f"/etc/{n}.png"} for n in range(number)]
    return pa.table({"image": pa.array(cells), **columns})


def take(folder: Path, bounds: Ingest = FEW) -> Intake:
    intake = take_in(folder, bounds, 0, "r-1")
    assert counted(intake) == intake.landed.arrived
    return intake


def texts(intake: Intake) -> list[str]:
    return sorted(intake.assets.manifest["text"].to_pylist())


def faults(intake: Intake) -> dict[str, str]:
    return {found.file: found.code for found in intake.quarantine}


def test_a_tar_of_webdataset(tmp_path: Path) -> None:
    members = {f"./{n:04d}.{kind}": content for n in range(3) for kind, content in (
        ("jpg", encoded(picture(n), "JPEG")), ("txt", b"picture %d" % n), ("cls", b"7"), ("json", b"{}")
    )}  # fmt: skip
    put(tmp_path, "shard-0.tar", tar_of(members))
    intake = take(tmp_path)
    assert (texts(intake), faults(intake)) == (["picture 0", "picture 1", "picture 2"], {})
    assert intake.landed.passed == {"opened": 1, "others": 3}


def test_a_folder_with_metadata_in_a_tar(tmp_path: Path) -> None:
    lines = b'{"file_name": "a/1.png", "text": "one", "slice": "ink"}\n{"file_name": "../2.png", "text": "out"}'
    put(tmp_path, "x.tar", tar_of({"metadata.jsonl": lines, "a/1.png": encoded(picture(1))}))
    put(tmp_path, "2.png", encoded(picture(2)))
    intake = take(tmp_path)
    assert (texts(intake), faults(intake)) == (
        ["one"],
        {"x.tar/metadata.jsonl:2": "unsafe_path", "2.png": "no_caption"},
    )


def test_parquet_with_images(tmp_path: Path) -> None:
    words = {"caption": ["zero", "one", None], "slice": ["ink", "ink", "ink"], "width": [1, 2, 3]}
    put(tmp_path, "train-00000-of-00001.parquet", parquet_of(images(3, **words)))
    intake = take(tmp_path)
    assert texts(intake) == ["one", "zero"]
    assert faults(intake) == {"train-00000-of-00001.parquet/00000002": "no_caption"}
    assert set(intake.assets.manifest["slice"].to_pylist()) == {"ink"}


def test_parquet_with_bytes_alone_and_without(tmp_path: Path) -> None:
    table = pa.table({"jpg": [encoded(picture(1), "JPEG"), None], "text": ["one", "gone"]})
    put(tmp_path, "a.parquet", parquet_of(table))
    put(tmp_path, "b.parquet", parquet_of(pa.table({"text": ["x"], "image": ["a.png"]})))
    intake = take(tmp_path)
    assert texts(intake) == ["one"]
    assert faults(intake) == {"a.parquet/00000001": "empty_file", "b.parquet": "no_images"}


def test_parquet_without_a_caption_names_its_columns(tmp_path: Path) -> None:
    put(tmp_path, "a.parquet", parquet_of(images(1, title=["x"])))
    (fault,) = [found for found in take(tmp_path).quarantine if found.code == "bad_header"]
    assert (fault.file, "file_name, title" in fault.reason) == ("a.parquet/metadata.jsonl", True)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_nothing_of_a_tar_has_a_path(tmp_path: Path) -> None:
    odd = [link("l.png", "/etc/passwd"), link("h.png", "a.png", tarfile.LNKTYPE), link("p.png", "", tarfile.FIFOTYPE)]
    members = dict.fromkeys(["../../evil.png", "/abs.png", "a/../b.png", "a//c.png"], encoded(picture(1)))
    put(tmp_path / "landing", "x.tar", tar_of(members, *odd))
    intake = take(tmp_path / "landing")
    assert {name.removeprefix("x.tar/"): code for name, code in faults(intake).items()} == {
        "../../evil.png": "bad_name",
        "/abs.png": "bad_name",
        "a/../b.png": "bad_name",
        "a//c.png": "bad_name",
        "l.png": "symlink",
        "h.png": "symlink",
        "p.png": "not_a_file",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["landing"]


def test_what_a_snapshot_holds_of_an_archive_is_copied_under_bounds(tmp_path: Path) -> None:
    members = {f"{n}.png": encoded(picture(n)) for n in range(6)} | {"large.png": bytes(100_001)}
    put(tmp_path / "landing", "x.tar", tar_of(members))
    root = tmp_path / "root"
    root.mkdir()
    take_snapshot(Folder(tmp_path / "landing"), FEW.model_copy(update={"max_files": 4}), "r-1", root)
    snapshot = Snapshot(root)
    entries = snapshot.listing(FEW).entries
    assert sorted(entry.fault or entry.left for entry in entries) == ["", "", "", "", "", "files", "files", "too_large"]
    for entry in entries:
        if entry.is_there:
            assert snapshot.read(entry, 10**6) == members[entry.name.removeprefix("x.tar/")]


def test_who_unpacks_knows_no_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    given: list[dict[str, str]] = []
    run = archives.subprocess.run
    monkeypatch.setattr(
        archives.subprocess, "run", lambda *a, env, **more: given.append(env) or run(*a, env=env, **more)
    )
    put(tmp_path, "x.tar", tar_of({"1.png": encoded(picture(1)), "1.txt": b"one"}))
    assert texts(take(tmp_path)) == ["one"]
    assert given[0].keys() <= set(archives.INHERITED)


def test_an_archive_that_is_too_large_is_not_opened(tmp_path: Path) -> None:
    with (tmp_path / "x.tar").open("wb") as file:
        file.truncate(2**40)
    assert faults(take(tmp_path)) == {"x.tar": "archive_too_large"}


def test_what_an_archive_unpacks_to_is_bounded(tmp_path: Path) -> None:
    fill(tmp_path, range(1))
    sparse = tarfile.TarInfo("zeros.png")
    sparse.size = 2**40
    put(tmp_path, "x.tar", tar_of({"a.png": encoded(picture(1))})[:-10240] + sparse.tobuf() + bytes(10240))
    table = pa.table({"image": pa.array([bytes(50_000)] * 400, pa.binary()), "text": ["x"] * 400})
    put(tmp_path, "x.parquet", parquet_of(table, compression="zstd"))
    intake = take(tmp_path, FEW.model_copy(update={"max_landing_bytes": 1_000_000}))
    assert intake.counts["new"] == 1
    assert faults(intake)["x.tar/zeros.png"] == "too_large"
    assert intake.landed.left["bytes"] > 350


@pytest.mark.parametrize("content", [b"", b"junk", b"PAR1" * 9, b"\0" * 10_240, bytes(range(256)) * 40])
@pytest.mark.parametrize("name", ["x.tar", "x.parquet"])
def test_what_is_no_archive_stops_nothing(tmp_path: Path, name: str, content: bytes) -> None:
    fill(tmp_path, range(2))
    put(tmp_path, name, content)
    intake = take(tmp_path)
    assert intake.counts["new"] == 2
    assert set(faults(intake)) <= {name}


def test_a_parser_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that leads to itself (CVE-2025-8194): older Pythons never come to an end of it."""
    monkeypatch.setattr(archives, "SECONDS", 2)
    fill(tmp_path, range(1))
    header = bytearray(tarfile.TarInfo("x").tobuf())
    header[124:136] = b"\x80" + struct.pack(">q", 0)[:3] + struct.pack(">q", 1)
    header[124:136] = b"\xff" * 4 + struct.pack(">q", -512)
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
    put(tmp_path, "x.tar", bytes(header) + bytes(1024))
    intake = take(tmp_path)
    assert (intake.counts["new"], set(faults(intake)) <= {"x.tar"}) == (1, True)


def test_a_cut_archive_gives_what_it_has(tmp_path: Path) -> None:
    whole = tar_of({f"{n}.png": encoded(picture(n)) for n in range(4)} | {f"{n}.txt": b"t%d" % n for n in range(4)})
    put(tmp_path, "x.tar", whole[:9000])
    intake = take(tmp_path)
    assert faults(intake)["x.tar"] == "bad_archive"
    assert intake.landed.arrived > 2


def test_flipped_bits_of_archives_are_taken_or_set_aside(tmp_path: Path) -> None:
    dice = random.Random(0)
    good = [tar_of({"1.png": encoded(picture(1)), "1.txt": b"one"}), parquet_of(images(2, text=["a", "b"]))]
    for number, (name, content) in enumerate(zip([".tar", ".parquet"] * 6, good * 6, strict=True)):
        flipped = bytearray(content)
        for _ in range(dice.randrange(1, 40)):
            flipped[dice.randrange(len(flipped))] ^= 1 << dice.randrange(8)
        put(tmp_path, f"{number}{name}", bytes(flipped))
    intake = take(tmp_path)
    assert intake.landed.arrived >= 12
    assert all(found.reason.isprintable() for found in intake.quarantine)


def test_a_list_that_was_not_written_to_its_end_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    put(tmp_path, "listed", b'{"name": "a", "num_bytes": 1}\n{"name": "b", "num')
    assert list(archives._listed(tmp_path / "listed")) == [Entry("a", 1)]
    put(tmp_path, "listed", json.dumps({"odd": 1}).encode())
    assert list(archives._listed(tmp_path / "listed")) == []
