"""Whatever arrives is taken in, set aside, or left with its reason: nothing is lost, and nothing stops the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFile

from cl_steps.config import Ingest, Params
from cl_steps.data.intake import Intake, take_in
from cl_steps.landing.place import open_landing
from cl_steps.landing.snapshot import BYTES, Snapshot, take_snapshot
from cl_steps.repository.line import Line
from tests.buckets import put, s3_server
from tests.data.hostile import LIMITS, counted, hostile_folder, hostile_objects

SCARCE = LIMITS.model_copy(
    update={
        "max_files": 40,
        "max_landing_bytes": 60_000,
        "max_metadata_bytes": 30_000,
        "max_metadata_lines": 200,
        "max_quarantine_bytes": 5_000,
    }
)
OURS = re.compile(r"(manifest|shard-\d{5}|quarantine/bytes-\d{5})\.parquet|quarantine\.jsonl")


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    files = fsspec.filesystem("memory")
    before = dict(files.store)
    files.store.clear()
    yield files
    files.store.clear()
    files.store.update(before)


def night(place: str, root: Path, limits: Ingest, known: pa.Table | None = None) -> Intake:
    """A landing copied, taken in and written, as a run does it."""
    root.mkdir()
    take_snapshot(open_landing(Line("", "", "", place), Params(), root), limits, "r-1", root)
    snapshot = Snapshot.at(root)
    assert snapshot
    intake = take_in(snapshot, limits, 0, "r-1", known)
    intake.write(root / "intake")
    return intake


def check(place: str, arrived: int, folder: Path, limits: Ingest) -> None:
    """Two nights: everything counted once, shown as printable text, kept in few files with names of ours."""
    nights: list[Intake] = []
    for number in range(2):
        root = folder / f"night-{number}"
        intake = night(place, root, limits, nights[0].assets.manifest if nights else None)
        nights.append(intake)
        assert (intake.landed.arrived, counted(intake)) == (arrived, arrived)
        rows = [json.loads(line) for line in (root / "intake/quarantine.jsonl").read_text().splitlines()]
        assert len(rows) == intake.counts["quarantined"]
        assert all(row["file"].isprintable() and row["reason"].isprintable() for row in rows)
        assert [path.name for path in (root / "landing").iterdir()] == ["objects.jsonl"]
        stored = {path.relative_to(root / "intake").as_posix() for path in (root / "intake").rglob("*.*")}
        assert all(OURS.fullmatch(name) for name in stored)
        assert (root / BYTES).stat().st_size <= limits.max_landing_bytes + limits.max_metadata_bytes
    assert nights[1].counts["new"] == 0
    assert nights[1].counts["known"] >= nights[0].counts["new"]


def fill(files: fsspec.AbstractFileSystem, objects: dict[str, bytes]) -> None:
    """Put objects where no library looks at their names."""
    for name, content in objects.items():
        files.store[f"/land/{name}"] = MemoryFile(files, f"/land/{name}", content)


AMOUNTS = [150, pytest.param(10_000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", AMOUNTS)
@pytest.mark.parametrize("limits", [LIMITS, SCARCE], ids=["ample", "scarce"])
def test_a_hostile_folder(tmp_path: Path, limits: Ingest, count: int) -> None:
    for seed in range(2):
        arrived = hostile_folder(tmp_path / f"{seed}/land", seed, count)
        check(f"file://{tmp_path}/{seed}/land", arrived, tmp_path / f"{seed}", limits)


@pytest.mark.parametrize("count", AMOUNTS)
@pytest.mark.parametrize("limits", [LIMITS, SCARCE], ids=["ample", "scarce"])
def test_hostile_objects(tmp_path: Path, memory: fsspec.AbstractFileSystem, limits: Ingest, count: int) -> None:
    for seed in range(2):
        memory.store.clear()
        objects = hostile_objects(seed, count)
        fill(memory, objects)
        (tmp_path / f"{seed}").mkdir()
        check("memory://land", len(objects), tmp_path / f"{seed}", limits)


@pytest.mark.slow
@pytest.mark.parametrize("limits", [LIMITS, SCARCE], ids=["ample", "scarce"])
def test_hostile_keys(tmp_path: Path, limits: Ingest) -> None:
    with s3_server() as files:
        arrived = put_all(files, hostile_objects(0, 1_000))
        check("s3://bucket/land", arrived, tmp_path, limits)


def put_all(files: fsspec.AbstractFileSystem, objects: dict[str, bytes]) -> int:
    """Those that the server takes; how many it has then."""
    for name, content in objects.items():
        # Not every name is UTF-8, or of a key's length, and moto's server takes no line breaks.
        with suppress(OSError, UnicodeError):
            put(files, f"land/{name}", content)
    pages = files.call_s3("list_objects_v2", Bucket="bucket", Prefix="land/", MaxKeys=len(objects))
    return sum(bool(key["Size"]) or not key["Key"].endswith("/") for key in pages["Contents"])
