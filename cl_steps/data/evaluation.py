"""The evaluation set: everything that was ever held out, and nothing that it holds is ever written anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa

from cl_steps.data.shards import content_digest, iter_assets, read_manifest, write_dataset, write_manifest


def write_next(folder: Path, before: Path, batch: Path) -> None:
    """Write the set that follows into the empty `folder`: the shards of `before` byte for byte, and the evaluation
    rows of `batch` in a folder of their own.
    """
    for path in sorted(before.rglob("shard-*.parquet")):
        target = folder / path.relative_to(before)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    manifest = read_manifest(before)
    known = set(manifest["sha256"].to_pylist())
    assets = [asset for asset in iter_assets(batch, "evaluation") if asset.sha256 not in known]
    if assets:
        part = folder / content_digest(read_manifest(batch))[:16]
        write_dataset(part, assets)
        manifest = pa.concat_tables([manifest, read_manifest(part)])
        (part / "manifest.parquet").unlink()
    write_manifest(folder, manifest)
