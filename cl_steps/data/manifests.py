"""Manifests of stored datasets, read by their digests: nothing is checked out, and no more is fetched than asked."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from cl_steps.data.shards import as_manifest
from cl_steps.documents import Json
from cl_steps.errors import IntegrityError
from cl_steps.store.objects import Store, open_store

MANIFEST, KNOWN = "manifest.parquet", "known.parquet"


class Manifests:
    """The datasets of a store; it is opened, and DVC imported, once something is read.

    `replaced` says which dataset stands for one that held withdrawn assets and may be erased.
    """

    def __init__(self, url: str, replaced: Mapping[str, Json], closing: ExitStack) -> None:
        self._url, self._replaced, self._closing = url, replaced, closing
        self._store: Store | None = None

    def read(self, md5: str, name: str = MANIFEST, columns: Iterable[str] = ()) -> pa.Table | None:
        """The rows of a dataset, or of what stands for it, all columns unless some are named; None where both are gone.

        Raises:
            IntegrityError: the bytes are not those of the digest, or no table of assets.
            Unavailable: the store cannot be reached.
        """
        content = self.files(md5, [name]).get(name)
        if content is None:
            return None
        try:
            if wanted := list(columns):
                return pq.read_table(io.BytesIO(content), columns=wanted)
            return as_manifest(pq.read_table(io.BytesIO(content)))
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise IntegrityError(f"{name} of dataset {md5} is no table of assets: restore the store") from error

    def files(self, md5: str, names: Iterable[str]) -> dict[str, bytes]:
        """The files of a stored folder, or of what stands for it, whose names match; raises as `read` does."""
        wanted = list(names)
        found = self._opened().files(md5, wanted)
        other = str(self._replaced.get(md5, {}).get("md5", md5))
        return found if found or other == md5 else self.files(other, wanted)

    def _opened(self) -> Store:
        if self._store is None:
            self._store = self._closing.enter_context(open_store(self._url))
        return self._store


@contextmanager
def reading_store(url: str, replaced: Mapping[str, Json] | None = None) -> Iterator[Manifests]:
    """The datasets of the store at `url`, for as long as the block runs."""
    with ExitStack() as closing:
        yield Manifests(url, replaced or {}, closing)
