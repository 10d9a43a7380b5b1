"""A version's model on disk: base and adapter fetched from the store by the digests of its record."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cl_steps.config import Params, load_params
from cl_steps.errors import UsageError
from cl_steps.workspace import store
from cl_steps.workspace.line import Line
from cl_steps.workspace.mainline import reading


@dataclass(frozen=True)
class Model:
    """A version, its record, the line's parameters today, and its folders (gone when the block ends)."""

    version: str
    record: dict[str, Any]
    params: Params
    base: Path
    adapter: Path


@contextmanager
def fetched(line: Line, version: str | None) -> Iterator[Model]:
    """Base and adapter of a version (None or `champion`: the champion), verified against their digests.

    Raises:
        UsageError: there is no such version.
        IntegrityError: the store's bytes are not what the record says.
    """
    with tempfile.TemporaryDirectory(prefix="retain-") as scratch, reading(line.git) as main:
        root = Path(scratch)
        champion = main.read_json("state/champion.json")["version"]
        wanted = champion if version in (None, "champion") else str(version)
        record = next((r for r in main.records() if r["version"] == wanted), None)
        if record is None:
            raise UsageError(f"there is no version {version!r}: `retain versions` lists them")
        (root / "params.yaml").write_bytes(main.read("params.yaml") or b"")
        digests = {"base": record["digests"]["base"], "adapter": record["digests"]["state"]["adapter"]}
        store.fetch(root / "model", line.store, digests)
        yield Model(wanted, record, load_params(root), root / "model" / "base", root / "model" / "adapter")
