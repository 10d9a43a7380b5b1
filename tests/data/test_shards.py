"""The format on disk: what is written is read, the manifest is the truth, tampering is seen."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cl_steps.data import shards
from cl_steps.data.images import dhash, thumbnail
from cl_steps.data.shards import (
    LATER,
    Asset,
    content_digest,
    iter_assets,
    manifest_of,
    read_assets,
    read_manifest,
    read_table,
    write_dataset,
    write_manifest,
    write_table,
)
from cl_steps.errors import IntegrityError
from tests.data.landings import encoded, picture


def asset(number: int, split: str = "train", run: str = "r1") -> Asset:
    image = encoded(picture(number))
    name = hashlib.sha256(image).hexdigest()
    prints = (dhash(picture(number)), thumbnail(picture(number)))
    return Asset(name, f"text {number}", "ink", split, False, "", "CC0", "", 32, 32, *prints, name, run, image)


ASSETS = sorted((asset(number, ("train", "probe")[number % 2]) for number in range(12)), key=lambda a: a.sha256)


@pytest.mark.parametrize("rows", [1, 5, 12, 100])
def test_what_is_written_is_read(tmp_path: Path, rows: int) -> None:
    write_dataset(tmp_path, random.Random(0).sample(ASSETS, 12), rows)
    assert len(list(tmp_path.glob("shard-*.parquet"))) == -(-12 // rows)
    assert read_assets(tmp_path) == ASSETS
    assert read_assets(tmp_path, "probe") == [a for a in ASSETS if a.split == "probe"]
    assert read_manifest(tmp_path).to_pylist() == [a.row() for a in ASSETS]


def test_row_groups_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "ROWS_PER_GROUP", 2)
    write_dataset(tmp_path, ASSETS)
    assert pq.ParquetFile(tmp_path / "shard-00000.parquet").num_row_groups == 6
    assert list(iter_assets(tmp_path)) == ASSETS


def test_shards_are_bounded_by_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_SHARD_BYTES", 2 * len(ASSETS[0].image))
    write_dataset(tmp_path, ASSETS)
    assert len(list(tmp_path.glob("shard-*.parquet"))) > 3
    assert read_assets(tmp_path) == ASSETS


def test_an_empty_dataset_and_none(tmp_path: Path) -> None:
    write_dataset(tmp_path / "empty", [])
    assert (tmp_path / "empty/manifest.parquet").is_file()
    for name in ("empty", "absent"):
        assert read_manifest(tmp_path / name).num_rows == 0
        assert read_assets(tmp_path / name) == []


def test_order_does_not_change_the_bytes(tmp_path: Path) -> None:
    for name, order in (("a", ASSETS), ("b", ASSETS[::-1])):
        write_dataset(tmp_path / name, order, 5)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_the_manifest_is_the_truth(tmp_path: Path) -> None:
    write_dataset(tmp_path, ASSETS)
    write_manifest(tmp_path, read_manifest(tmp_path).slice(0, 3))
    assert read_assets(tmp_path) == ASSETS[:3]


def test_shards_may_lie_in_subfolders(tmp_path: Path) -> None:
    write_dataset(tmp_path / "one", ASSETS[:7])
    write_dataset(tmp_path / "two", ASSETS[5:])
    manifest = manifest_of([tmp_path / "one", tmp_path / "two"])
    (tmp_path / "one/manifest.parquet").unlink()
    write_manifest(tmp_path, manifest)
    assert read_assets(tmp_path) == ASSETS


def test_tampered_and_missing_images_are_integrity_errors(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a", [dataclasses.replace(ASSETS[0], image=ASSETS[1].image), ASSETS[2]])
    with pytest.raises(IntegrityError, match="other bytes"):
        read_assets(tmp_path / "a")
    write_dataset(tmp_path / "b", ASSETS[:2])
    (tmp_path / "b/shard-00000.parquet").unlink()
    with pytest.raises(IntegrityError, match="in no shard"):
        read_assets(tmp_path / "b")
    (tmp_path / "b/manifest.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(IntegrityError, match="no table"):
        read_manifest(tmp_path / "b")
    pq.write_table(pa.table({"sha256": ["a"]}), tmp_path / "b/manifest.parquet")
    with pytest.raises(IntegrityError, match="no table"):
        read_manifest(tmp_path / "b")


def test_the_digest_is_of_content_not_of_runs_or_order() -> None:
    rows = [a.row() for a in ASSETS]
    digest = content_digest(pa.Table.from_pylist(rows))
    again = [row | {"run": "r2", "licence": ""} for row in rows[::-1]]
    assert content_digest(pa.Table.from_pylist(again)) == digest
    for key, value in {"text": "x", "split": "evaluation", "slice": "neon", "sha256": "0"}.items():
        assert content_digest(pa.Table.from_pylist([rows[0] | {key: value}, *rows[1:]])) != digest


def test_hugging_face_reads_the_image_column_as_images(tmp_path: Path) -> None:
    write_dataset(tmp_path, ASSETS[:1])
    schema = pq.read_schema(tmp_path / "shard-00000.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert set(features) == set(schema.names)
    assert schema.field("image").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_a_table_of_an_older_release_has_nothing_in_the_later_columns(tmp_path: Path) -> None:
    write_dataset(tmp_path, ASSETS)
    write_table(tmp_path / "known.parquet", read_manifest(tmp_path).drop_columns(list(LATER)))
    rows = read_table(tmp_path / "known.parquet").to_pylist()
    assert [row["sha256"] for row in rows] == [asset.sha256 for asset in ASSETS]
    assert {row[name] for row in rows for name in LATER} == {"", b""}


def test_an_asset_is_seen_on_its_own_background() -> None:
    image = encoded(Image.new("LA", (8, 8), (0, 0)))
    seen = dataclasses.replace(ASSETS[0], image=image, background="#204060")
    assert seen.picture((4, 4)).getpixel((0, 0)) == (0x20, 0x40, 0x60)
