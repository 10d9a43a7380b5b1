"""A version's model on disk: base and adapter fetched from the store by the digests of its record."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cl_steps.config import Params, load_params
from cl_steps.ledger.record import Record
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Mainline, reading
from cl_steps.store import dvc
from cl_steps.verify.authenticity import Trust
from cl_steps.verify.before_loading import check_files, check_record


@dataclass(frozen=True)
class Model:
    """A version, its record, the line's parameters today, and its folders (gone when the block ends)."""

    version: str
    record: Record
    params: Params
    base: Path
    adapter: Path


def record_of(main: Mainline, version: str | None) -> Record:
    """The record of a version (None or `champion`: the champion's); raises UsageError where there is none."""
    if version is None or version == "champion":
        version = main.champion().version
    return main.record(version)


@contextmanager
def fetched(line: Line, version: str | None) -> Iterator[Model]:
    """Base and adapter of a version (None or `champion`: the champion), verified against its record, and that too.

    Raises:
        UsageError: there is no such version.
        IntegrityError: the store's bytes are not what the record says, or the record is not what was signed.
    """
    with tempfile.TemporaryDirectory(prefix="retain-") as scratch, reading(line.git) as main:
        root = Path(scratch)
        record = record_of(main, version)
        (root / "params.yaml").write_bytes(main.read("params.yaml") or b"")
        digests = {"base": record.digests.base, "adapter": record.digests.state["adapter"]}
        check_record(main, record.version, Trust.read(line.trusted_keys))
        dvc.fetch(root / "model", line.store, digests)
        check_files(record, {part: root / "model" / part for part in digests})
        yield Model(record.version, record, load_params(root), root / "model" / "base", root / "model" / "adapter")
