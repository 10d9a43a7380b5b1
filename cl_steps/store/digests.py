"""What a store really holds: objects read again from their first byte to their last, each once, several at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from cl_steps.errors import Unavailable
from cl_steps.progress import progress
from cl_steps.store.availability import reaching
from cl_steps.store.dvc import opened_objects
from cl_steps.store.vault import at

AT_ONCE = 8
"""Objects that are read at the same time, a part of `PART_BYTES` of each in memory."""
PART_BYTES = 2**20


@dataclass(frozen=True)
class Held:
    """An object of the store as it is: the digests of its bytes, as hex, its size, and the bytes where asked for."""

    md5: str
    sha256: str
    num_bytes: int
    content: bytes = b""


class Reader:
    """A store that is open for reading."""

    def __init__(self, odb: Any) -> None:
        self._odb = odb

    def read(self, names: Collection[str], keep: Collection[str] = ()) -> dict[str, Held | None]:
        """Every one of those objects, by DVC's name of it; None where the store has none.

        Args:
            names: of the objects.
            keep: those among them whose bytes are wanted: all of them are in memory at once.

        Raises:
            Unavailable: the store cannot be reached.
        """
        chosen, kept = sorted(set(names)), frozenset(keep)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = pool.map(lambda name: self._read(name, name in kept), chosen)
            return dict(zip(chosen, progress(found, len(chosen), "verify: objects"), strict=True))

    def _read(self, name: str, keep: bool) -> Held | None:
        try:
            # Of what is written to a bucket in parts, fsspec would otherwise fetch 50 MB at once.
            path, part = self._odb.oid_to_path(name), 8 * PART_BYTES
            with reaching(f"object {name} of the store"), self._odb.fs.open(path, "rb", block_size=part) as stream:
                return _digest(stream, keep)
        except FileNotFoundError:
            return None


@contextmanager
def open_reader(store_url: str) -> Iterator[Reader]:
    """The store at a URL or folder; raises Unavailable, also where it holds nothing at all."""
    # DVC says of a store that it cannot reach that nothing is in it; a folder may not be mounted.
    if "files" not in at(store_url).folders():
        raise Unavailable(f"the store {store_url} holds no object at all: is it the right one, and mounted?")
    with opened_objects(store_url) as odb:
        yield Reader(odb)


def _digest(stream: BinaryIO, keep: bool) -> Held:
    md5, sha256, parts, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), [], 0
    while part := stream.read(PART_BYTES):
        md5.update(part)
        sha256.update(part)
        size += len(part)
        if keep:
            parts.append(part)
    return Held(md5.hexdigest(), sha256.hexdigest(), size, b"".join(parts))
