"""Assets on disk: few, large, immutable Parquet shards and the manifest that says which of their rows exist.

A dataset folder is `manifest.parquet` and, anywhere below it, `shard-*.parquet`. A shard has the column `image`
(struct<bytes, path>, the Hugging Face `Image` layout, holding the file's own bytes) and then the manifest's columns.
The manifest is the truth: a row of a shard that it does not list does not exist for a reader.
The same assets give the same bytes on disk: rows are sorted by SHA-256 and the settings of Parquet are fixed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cl_steps import digests
from cl_steps.data.images import decode
from cl_steps.errors import IntegrityError

__all__ = [
    "MANIFEST_SCHEMA",
    "SPLITS",
    "Asset",
    "as_manifest",
    "batched",
    "content_digest",
    "distinct",
    "iter_assets",
    "manifest_of",
    "read_assets",
    "read_manifest",
    "read_table",
    "write_dataset",
    "write_manifest",
    "write_table",
]

Item = TypeVar("Item")
SPLITS = ("train", "probe", "evaluation")
MANIFEST_NAME = "manifest.parquet"
MAX_SHARD_BYTES = 256 * 2**20
ROWS_PER_GROUP = 64
"""Rows a Parquet row group: what a reader that streams holds in memory at once."""

MANIFEST_SCHEMA = pa.schema(
    [
        ("sha256", pa.string()),
        ("text", pa.string()),
        ("slice", pa.string()),
        ("split", pa.string()),
        ("sealed", pa.bool_()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("consent", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("dhash", pa.binary(8)),
        ("thumbnail", pa.binary(192)),
        ("group", pa.string()),
        ("run", pa.string()),
        ("background", pa.string()),
        ("consent_until", pa.string()),
        ("taken", pa.string()),
        ("detail", pa.binary()),
    ]
)
LATER = ("background", "consent_until", "taken", "detail")
"""Columns that tables of Retain 0.2.0 and before do not have: empty for all of their rows."""
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_FEATURES = {"image": {"_type": "Image"}} | {
    field.name: {"_type": "Value", "dtype": "binary" if "binary" in str(field.type) else str(field.type)}
    for field in MANIFEST_SCHEMA
}
SHARD_SCHEMA = pa.schema(
    [("image", _IMAGE), *MANIFEST_SCHEMA], metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})}
)
_REPEATING = ["text", "slice", "split", "source", "licence", "consent", "run", "background", "consent_until"]


@dataclass(frozen=True)
class Asset:
    """One image, its caption and facts, named by the SHA-256 of its bytes; absent facts are empty strings.

    `width`, `height` in pixels as seen upright; `dhash` 8 bytes; `thumbnail` 8x8 RGB, 192 bytes; `group` names its
    near-duplicates; `run` the intake that brought it; `sealed` rows (of evaluation only) are read by an audit alone.
    `background` is the colour behind a transparent image, empty for an opaque one; `consent_until` the last day of
    consent (ISO 8601), and `taken` when the camera took it by its own clock, both empty where nobody says so. `detail`
    is 16x16 brightness, 256 bytes, empty for small pictures and older assets.
    """

    sha256: str
    text: str
    slice: str
    split: str
    sealed: bool
    source: str
    licence: str
    consent: str
    width: int
    height: int
    dhash: bytes
    thumbnail: bytes
    group: str
    run: str
    image: bytes
    background: str = ""
    consent_until: str = ""
    taken: str = ""
    detail: bytes = b""

    def picture(self, size: tuple[int, int] | None = None) -> Image.Image:
        """The image in upright sRGB, as `images.decode` has it."""
        return decode(self.image, size, self.background)

    def row(self) -> dict[str, Any]:
        """The manifest's columns of this asset."""
        return {key: value for key, value in asdict(self).items() if key != "image"}


def write_dataset(folder: Path, assets: Iterable[Asset], rows_per_shard: int = 2000, in_order: bool = False) -> None:
    """Write a dataset folder: shards of at most `rows_per_shard` rows and about 256 MiB of images, and the manifest.

    Args:
        folder: where to; made if absent, must hold no shards yet.
        assets: each SHA-256 once; their order does not matter.
        rows_per_shard: the most rows a shard.
        in_order: the assets come sorted by SHA-256 already, so they are streamed and never all in memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ordered = assets if in_order else sorted(assets, key=lambda asset: asset.sha256)
    rows: list[dict[str, Any]] = []
    for number, shard in enumerate(_packs(ordered, rows_per_shard)):
        shard_rows = [asset.row() for asset in shard]
        _write_shard(folder / f"shard-{number:05d}.parquet", shard, shard_rows)
        rows.extend(shard_rows)
    names = [row["sha256"] for row in rows]
    assert names == sorted(set(names)), "assets must be sorted and distinct"
    write_manifest(folder, pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA))


def write_manifest(folder: Path, manifest: pa.Table) -> None:
    """Write `manifest.parquet`, sorted by SHA-256."""
    write_table(folder / MANIFEST_NAME, manifest.sort_by("sha256"))


def write_table(path: Path, table: pa.Table) -> None:
    """Write any table as Parquet with the project's fixed settings: the same table gives the same bytes."""
    pq.write_table(table, path, compression="zstd", version="2.6")


def read_manifest(folder: Path) -> pa.Table:
    """The manifest (columns of `MANIFEST_SCHEMA`, sorted by SHA-256); 0 rows where there is none."""
    path = folder / MANIFEST_NAME
    return read_table(path) if path.is_file() else MANIFEST_SCHEMA.empty_table()


def read_table(path: Path) -> pa.Table:
    """Any Parquet file that holds manifest rows, such as `known.parquet`, sorted by SHA-256.

    Raises:
        IntegrityError: it is no Parquet file, or lacks a column.
    """
    try:
        return as_manifest(pq.ParquetFile(path).read()).sort_by("sha256")
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise IntegrityError(f"{path} is no table of assets: restore it from the remote") from error


def as_manifest(table: pa.Table) -> pa.Table:
    """Rows of any release in the columns of this one; raises KeyError or what Arrow raises where one is missing."""
    for name in LATER:
        if name not in table.column_names:
            nothing = pa.scalar(b"" if name == "detail" else "", MANIFEST_SCHEMA.field(name).type)
            table = table.append_column(name, pa.repeat(nothing, table.num_rows))
    return table.select(MANIFEST_SCHEMA.names).cast(MANIFEST_SCHEMA)


def manifest_of(folders: Iterable[Path]) -> pa.Table:
    """The manifests of several dataset folders as one; the first row wins where a SHA-256 repeats."""
    table = pa.concat_tables([MANIFEST_SCHEMA.empty_table(), *map(read_manifest, folders)]).combine_chunks()
    return distinct(table)


def distinct(manifest: pa.Table) -> pa.Table:
    """The first row of each SHA-256, sorted by it."""
    first: dict[str, int] = {}
    for index, name in enumerate(manifest["sha256"].to_pylist()):
        first.setdefault(name, index)
    return manifest.take(pa.array(first.values(), pa.int64())).sort_by("sha256")


def read_assets(folder: Path, split: str | None = None) -> list[Asset]:
    """The assets that the manifest lists (of one split), sorted by SHA-256, with their images.

    Raises:
        IntegrityError: an image's bytes are not those of its name, or a listed asset is in no shard.
    """
    return sorted(iter_assets(folder, split), key=lambda asset: asset.sha256)


def iter_assets(folder: Path, split: str | None = None, names: Collection[str] | None = None) -> Iterator[Asset]:
    """"""
    rows = {
        row["sha256"]: row
        for row in read_manifest(folder).to_pylist()
        if split in (None, row["split"]) and (names is None or row["sha256"] in names)
    }
    for path in sorted(folder.rglob("shard-*.parquet")):
        for name, image in _images(path, rows.keys()):
            row = rows.pop(name, None)
            if row is not None:
                yield _checked(Asset(**row, image=image), path)
    if rows:
        raise IntegrityError(f"{len(rows)} assets that {folder / MANIFEST_NAME} lists are in no shard: pull it again")


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items; the last may be shorter."""
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some


def content_digest(manifest: pa.Table) -> str:
    """SHA-256 (hex) over the sorted (sha256, text, slice, split) rows: what a batch is called; runs do not count."""
    columns = [manifest[name].to_pylist() for name in ("sha256", "text", "slice", "split")]
    digest = hashlib.sha256()
    for row in sorted(zip(*columns, strict=True)):
        digest.update(json.dumps(row, ensure_ascii=True).encode() + b"\n")
    return digest.hexdigest()


def _packs(assets: Iterable[Asset], rows_per_shard: int) -> Iterator[list[Asset]]:
    pack: list[Asset] = []
    num_bytes = 0
    for asset in assets:
        if pack and (len(pack) == rows_per_shard or num_bytes + len(asset.image) > MAX_SHARD_BYTES):
            yield pack
            pack, num_bytes = [], 0
        pack.append(asset)
        num_bytes += len(asset.image)
    if pack:
        yield pack


def _write_shard(path: Path, assets: list[Asset], rows: list[dict[str, Any]]) -> None:
    images = [{"bytes": asset.image, "path": asset.sha256} for asset in assets]
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in MANIFEST_SCHEMA]
    table = pa.table([pa.array(images, _IMAGE), *columns], schema=SHARD_SCHEMA)
    pq.write_table(
        table, path, compression="zstd", version="2.6", use_dictionary=_REPEATING, row_group_size=ROWS_PER_GROUP
    )


def _images(path: Path, wanted: Any) -> Iterator[tuple[str, bytes]]:
    """(sha256, image bytes) of the wanted rows; row groups without any are not read."""
    file = pq.ParquetFile(path)
    for group in range(file.num_row_groups):
        names = file.read_row_group(group, columns=["sha256"])["sha256"].to_pylist()
        if any(name in wanted for name in names):
            images = file.read_row_group(group, columns=["image"])["image"].to_pylist()
            yield from ((name, image["bytes"]) for name, image in zip(names, images, strict=True))


def _checked(asset: Asset, path: Path) -> Asset:
    if digests.sha256(asset.image) != asset.sha256:
        raise IntegrityError(f"{path} holds other bytes than its asset {asset.sha256} says: pull it again")
    return asset


assert [field.name for field in fields(Asset) if field.name != "image"] == MANIFEST_SCHEMA.names
