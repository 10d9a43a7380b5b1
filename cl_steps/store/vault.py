"""A place of files in folders: a folder here, or any URL that fsspec reaches; for backups, and to ask for a store."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cl_steps.errors import IntegrityError, UsageError
from cl_steps.store.availability import reaching


@dataclass(frozen=True)
class Vault:
    """The folder `root` of a file system; every name below is relative to it."""

    fs: Any
    root: str
    url: str

    def folders(self) -> list[str]:
        """The names of the folders right in it, in order; none where it is not there yet. Raises Unavailable."""
        with self._reaching():
            self.fs.invalidate_cache()
            try:
                found = self.fs.ls(self.root, detail=True)
            except FileNotFoundError:
                return []
        return sorted(entry["name"].rstrip("/").rpartition("/")[2] for entry in found if entry["type"] == "directory")

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none. Raises Unavailable."""
        with self._reaching():
            try:
                return bytes(self.fs.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def put(self, file: Path, name: str) -> None:
        """Store a file; raises Unavailable."""
        with self._reaching():
            if "file" in self.fs.protocol:  # a bucket needs no folders, and s3fs would make one of a mistyped name
                self.fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
            self.fs.put_file(str(file), self._path(name))

    def get(self, name: str, file: Path) -> None:
        """Fetch a file.

        Raises:
            IntegrityError: it is not there.
            Unavailable: the place cannot be reached.
        """
        with self._reaching():
            try:
                self.fs.get_file(self._path(name), str(file))
            except FileNotFoundError as error:
                raise IntegrityError(f"{name} is missing from the backup: restore from another one") from error

    def delete(self, name: str) -> None:
        """Delete a file, or a folder with all in it, if it is there; raises Unavailable."""
        with self._reaching(), suppress(FileNotFoundError):
            self.fs.rm(self._path(name), recursive=True)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _reaching(self) -> AbstractContextManager[None]:
        return reaching(self.url, passing=())


def at(url: str) -> Vault:
    """The vault at a folder or URL, which need not be there yet; raises UsageError where no library knows the URL."""
    from fsspec.core import url_to_fs

    try:
        fs, root = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{url!r} is no place for files: name a folder, or a URL like s3://bucket/folder") from error
    return Vault(fs, str(root).rstrip("/"), url.rstrip("/"))
