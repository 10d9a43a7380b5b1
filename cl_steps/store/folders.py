"""Stored folders one by one: what is in them, and others in their place with a few files changed. Nothing is checked
out; what stays the same is named again and not moved.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from cl_steps.errors import IntegrityError, Unavailable
from cl_steps.store.availability import reaching
from cl_steps.store.dvc import opened_objects
from cl_steps.store.odb import read_object
from cl_steps.store.pointers import Out, file_md5

Listing = Mapping[str, str]
"""The files of a folder: path in it to md5."""


class Folders:
    """The folders of a store that is open; each method raises Unavailable where the store cannot be used."""

    def __init__(self, odb: Any) -> None:
        self._odb = odb

    def listing(self, md5: str) -> Listing | None:
        """The files of a folder; None where the store does not have it (any more)."""
        with reaching("the store"):
            content = read_object(self._odb, md5)
        return None if content is None else {entry["relpath"]: entry["md5"] for entry in json.loads(content)}

    @contextmanager
    def reading(self, md5: str) -> Iterator[IO[bytes] | None]:
        """A file as a seekable stream, of which only what is read is fetched; not checked. None where it is gone."""
        with reaching("the store"):
            try:
                stream = self._odb.fs.open(self._odb.oid_to_path(md5), "rb")
            except FileNotFoundError:
                stream = None
        if stream is None:
            yield None
            return
        with stream, reaching("the store"):
            yield stream

    def fetch(self, md5: str, path: Path) -> None:
        """Bring a file here, checked against its name; raises IntegrityError where it is missing or another."""
        with reaching("the store"):
            content = read_object(self._odb, md5)
        if content is None:
            raise IntegrityError(f"object {md5} is missing from the store: restore the store from a copy")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def put(self, kept: Listing, changed: Path) -> Out:
        """Store a folder of files that the store has (`kept`) and of those in the folder `changed`."""
        paths = {path.relative_to(changed).as_posix(): path for path in changed.rglob("*") if path.is_file()}
        entries = {**kept, **{name: file_md5(path) for name, path in paths.items()}}
        listed = [
            {"md5": entries[name], "relpath": name} for name in sorted(entries, key=lambda n: tuple(n.split("/")))
        ]
        content = json.dumps(listed, sort_keys=True).encode()
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + ".dir"
        with reaching("the store"), TemporaryDirectory(prefix="retain-") as scratch:
            own = Path(scratch) / "listing"
            own.write_bytes(content)
            # The list comes last: a folder that is there is there whole.
            for name, path in [*((entries[name], path) for name, path in paths.items()), (md5, own)]:
                self._add(name, path)
            sizes = [self._odb.fs.size(self._odb.oid_to_path(entry)) for entry in entries.values()]
        return {"md5": md5, "size": sum(sizes), "nfiles": len(entries)}

    def _add(self, md5: str, path: Path) -> None:
        from dvc_objects.fs.local import LocalFileSystem

        self._odb.add(str(path), LocalFileSystem(), md5)
        if not self._odb.exists(md5):
            raise Unavailable(f"the store did not take object {md5}: try again")


@contextmanager
def open_folders(store_url: str) -> Iterator[Folders]:
    """The folders of the store at a URL or folder."""
    with opened_objects(store_url) as odb:
        yield Folders(odb)
