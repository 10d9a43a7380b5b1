"""The third place beside Git and the store: `work`, a folder or a URL such as `s3://bucket/prefix`.

It holds what may vanish, such as checkpoints. A name stands for a whole content or for nothing: a folder writes through
a draft that is flushed to the disk and renamed; an object store shows an object once all of it is there.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from cl_steps.errors import UsageError
from cl_steps.store.availability import reaching

WHAT = "the place for checkpoints (RETAIN_WORK)"


class Place(Protocol):
    """A flat set of named contents; each method raises Unavailable where the place cannot be used now."""

    def names(self) -> list[str]:
        """Every name that is there now, sorted; none where nothing was ever written."""

    def read(self, name: str) -> bytes:
        """The content; raises FileNotFoundError where there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Put the content there, whole or not at all, in place of what was there."""

    def delete(self, name: str) -> None:
        """Take one away, if it is there."""

    def remove(self) -> None:
        """Take everything away."""


def place(work: str | Path, *parts: str) -> Place:
    """The place below `work`, which is a folder or a URL; raises UsageError for a URL that nothing here can open."""
    if "://" in str(work):
        return Bucket("/".join((str(work).rstrip("/"), *parts)))
    return Folder(Path(work, *parts))


class Folder:
    """A place on a file system."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        """See `Place`."""
        with reaching(WHAT):
            return sorted(path.name for path in self._path.iterdir()) if self._path.is_dir() else []

    def read(self, name: str) -> bytes:
        """See `Place`."""
        with reaching(WHAT):
            return (self._path / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """See `Place`."""
        draft = self._path / f".{name}.draft"
        with reaching(WHAT):
            self._path.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path / name)

    def delete(self, name: str) -> None:
        """See `Place`."""
        with reaching(WHAT):
            (self._path / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """See `Place`."""
        shutil.rmtree(self._path, ignore_errors=True)


class Bucket:
    """A place that fsspec reaches: a prefix of an object store, where a write is seen whole or not at all."""

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._files, path = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            kind = url.partition("://")[0]
            raise UsageError(f"RETAIN_WORK is a {kind}:// URL, which nothing here can open: {error}") from error
        self._path = str(path).rstrip("/")

    def names(self) -> list[str]:
        """See `Place`; asks the store anew, whatever was listed before."""
        with reaching(WHAT), suppress(FileNotFoundError):
            self._files.invalidate_cache(self._path)
            entries: list[dict[str, Any]] = self._files.ls(self._path, detail=True)
            return sorted(str(e["name"]).rpartition("/")[2] for e in entries if e["type"] == "file")
        return []

    def read(self, name: str) -> bytes:
        """See `Place`."""
        with reaching(WHAT):
            return bytes(self._files.cat_file(f"{self._path}/{name}"))

    def write(self, name: str, content: bytes) -> None:
        """See `Place`."""
        with reaching(WHAT):
            self._files.pipe_file(f"{self._path}/{name}", content)

    def delete(self, name: str) -> None:
        """See `Place`."""
        with reaching(WHAT), suppress(FileNotFoundError):
            self._files.rm_file(f"{self._path}/{name}")

    def remove(self) -> None:
        """See `Place`."""
        for name in self.names():
            self.delete(name)
