"""What is quarantined, on disk: `quarantine.jsonl` with a row for each, and the bytes by digest in few Parquet files.

Strangers decide how many things are set aside, and each file of an intake is an object of the store, which takes
milliseconds: so there is never a file for each of them. `retain withdraw --erase` filters these files like all others
with a column `sha256`. Intakes of older lines have a file `quarantine/<sha256>` for each content.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from cl_steps import digests
from cl_steps.data.quarantine import Quarantined, Unusable
from cl_steps.data.shards import write_table

BYTES_SCHEMA = pa.schema([("sha256", pa.string()), ("bytes", pa.binary())])
MAX_PACK_BYTES = 128 * 2**20
"""Of one of those files, about."""


def write_quarantine(
    folder: Path,
    found: Iterable[Quarantined],
    wanted: Iterable[Quarantined] = (),
    read: Callable[[str], bytes] | None = None,
    max_bytes: int = 0,
) -> int:
    """Write `quarantine.jsonl` (sorted) and the bytes of those in `wanted` into `quarantine/`.

    Args:
        folder: where to.
        found: all of it, each a row.
        wanted: whose bytes are kept, where they are known: not those of what was withdrawn.
        read: gives the bytes of a file of the landing; of one that changed or went meanwhile only the row stays.
        max_bytes: the most that is kept.

    Returns:
        How many contents are not kept, since they would be more than that.
    """
    text = "".join(json.dumps(row.row(), sort_keys=True) + "\n" for row in sorted(found))
    (folder / "quarantine.jsonl").write_text(text, encoding="utf-8")
    fitting, num_over = _fitting(wanted, max_bytes)
    for number, pack in enumerate(_packs(fitting, read)):
        (folder / "quarantine").mkdir(exist_ok=True)
        write_table(folder / "quarantine" / f"bytes-{number:05d}.parquet", pack)
    return num_over


def _fitting(wanted: Iterable[Quarantined], max_bytes: int) -> tuple[list[Quarantined], int]:
    """Each content once, by its digest, as far as they fit; and how many do not."""
    contents = {row.sha256: row for row in sorted(wanted) if row.sha256 and row.code != "withdrawn"}
    fitting, num_bytes = [], 0
    for row in contents.values():
        if num_bytes + row.num_bytes <= max_bytes:
            fitting.append(row)
            num_bytes += row.num_bytes
    return fitting, len(contents) - len(fitting)


def _packs(rows: Iterable[Quarantined], read: Callable[[str], bytes] | None) -> Iterator[pa.Table]:
    """Contents as tables of `BYTES_SCHEMA`, few and large: an object of the store each would take minutes."""
    kept: list[dict[str, str | bytes]] = []
    num_bytes = 0
    for row in rows:
        content = _content(row, read)
        if content is not None:
            kept.append({"sha256": row.sha256, "bytes": content})
            num_bytes += len(content)
        if num_bytes > MAX_PACK_BYTES:
            yield pa.Table.from_pylist(kept, schema=BYTES_SCHEMA)
            kept, num_bytes = [], 0
    if kept:
        yield pa.Table.from_pylist(kept, schema=BYTES_SCHEMA)


def _content(row: Quarantined, read: Callable[[str], bytes] | None) -> bytes | None:
    try:
        content = row.content or (read(row.origin) if read and row.origin else b"")
    except Unusable:
        return None
    return content if digests.sha256(content) == row.sha256 else None
