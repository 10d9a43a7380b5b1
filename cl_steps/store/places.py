"""A place of named files: a folder here, or any URL that fsspec reaches, such as `s3://bucket/prefix`.

Checkpoints, pages, backups and stores of objects lie in such places. A name stands for a whole content or for nothing:
a folder writes through a draft that is flushed to the disk and renamed; an object store shows an object once all of it
is there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cl_steps.errors import RetainError, Unavailable, UsageError, first_line

WORK = "the place for checkpoints (RETAIN_WORK)"


@dataclass(frozen=True)
class Place:
    """A folder of a file system, which need not be there yet; each method raises Unavailable where it cannot be used.

    Attributes:
        files: fsspec's file system.
        root: the folder on it; the names that methods take are relative to it, and may lead into folders of it.
        label: what errors call it.
    """

    files: Any
    root: str
    label: str

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        from fsspec.implementations.local import LocalFileSystem

        return isinstance(self.files, LocalFileSystem)

    def names(self) -> list[str]:
        """Every file right in it that is there now, sorted; none where nothing was ever written."""
        return sorted(_last(entry) for entry in self._entries() if entry["type"] != "directory")

    def folders(self) -> list[str]:
        """Every folder right in it, sorted."""
        return sorted(_last(entry) for entry in self._entries() if entry["type"] == "directory")

    def sizes(self, below: str) -> dict[str, int]:
        """The names of all files below a folder of it, however deep, with their sizes in bytes."""
        with reaching(self.label), suppress(FileNotFoundError):
            self.files.invalidate_cache()
            found = self.files.find(self._path(below), detail=True)
            return {path.removeprefix(f"{self.root}/"): int(entry["size"]) for path, entry in found.items()}
        return {}

    def read(self, name: str) -> bytes:
        """The content of a file; raises FileNotFoundError where there is none."""
        with reaching(self.label):
            return bytes(self.files.cat_file(self._path(name)))

    def write(self, name: str, content: bytes) -> None:
        """Put a content there, whole or not at all, in place of what was there."""
        with reaching(self.label, passing=()):
            if not self.is_local:
                self.files.pipe_file(self._path(name), content)
                return
            with self._draft(name) as stream:
                stream.write(content)

    def put(self, file: Path, name: str) -> None:
        """Put a copy of a file there, whole or not at all, in place of what was there."""
        with reaching(self.label, passing=()):
            if not self.is_local:
                self.files.put_file(str(file), self._path(name))
                return
            with self._draft(name) as stream, file.open("rb") as source:
                shutil.copyfileobj(source, stream)

    def get(self, name: str, file: Path) -> None:
        """Fetch a copy of a file; raises FileNotFoundError where there is none."""
        with reaching(self.label):
            self.files.get_file(self._path(name), str(file))

    def delete(self, name: str) -> None:
        """Take a file away, if it is there."""
        with reaching(self.label), suppress(FileNotFoundError):
            if self.is_local:
                Path(self._path(name)).unlink()
            else:
                self.files.rm_file(self._path(name))

    def remove(self, folder: str = "") -> None:
        """Take a folder away with all that is in it, if it is there; without a name, everything."""
        if folder:
            with reaching(self.label), suppress(FileNotFoundError):
                self.files.rm(self._path(folder), recursive=True)
            return
        if self.is_local:
            shutil.rmtree(self.root, ignore_errors=True)
        # One by one: s3fs, asked to remove the root of a bucket, removes the bucket.
        for name in self.names():
            self.delete(name)
        for name in self.folders():
            self.remove(name)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _entries(self) -> list[dict[str, Any]]:
        """What is right in it; asks anew, whatever was listed before."""
        with reaching(self.label), suppress(FileNotFoundError):
            self.files.invalidate_cache()
            found = self.files.ls(self.root, detail=True)
            # A file in the folder's place, or the mark that consoles make for an empty folder, is listed as itself.
            return [entry for entry in found if str(entry["name"]).rstrip("/") != self.root]
        return []

    @contextmanager
    def _draft(self, name: str) -> Iterator[IO[bytes]]:
        """A file to write to, which gets its name once all of it is on the disk."""
        path = Path(self._path(name))
        draft = path.with_name(f".{path.name}.draft")
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)


def open_place(where: str | Path, *parts: str, label: str = "") -> Place:
    """The place at a folder or URL, or below it; raises UsageError for a URL that nothing here can open."""
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    url = "/".join((str(where).rstrip("/"), *parts)) if parts else str(where)
    label = label or url.rstrip("/")
    if "://" not in str(where):
        return Place(LocalFileSystem(), os.path.abspath(os.path.expanduser(url)), label)  # noqa: PTH100, PTH111
    try:
        files, root = url_to_fs(url)
    except (ImportError, ValueError) as error:
        why = f"nothing here opens a {url.partition('://')[0]}:// URL ({first_line(error)})"
        words = f"{label} is no place for files, {why}: name a folder, or a URL such as s3://bucket/folder"
        raise UsageError(words) from error
    return Place(files, str(root).rstrip("/"), label)


def open_work(work: str | Path, *parts: str) -> Place:
    """The third place of a line beside Git and the store, or a part of it: it holds what may vanish."""
    return open_place(work, *parts, label=WORK)


@contextmanager
def reaching(what: str, passing: tuple[type[Exception], ...] = (FileNotFoundError,)) -> Iterator[None]:
    """Whatever a library raises means that `what` is away, or refuses; our own errors and those in `passing` go on.

    A bucket that is not there is a FileNotFoundError, too: pass none where a missing file was looked after before.

    Raises:
        Unavailable: in the place of the library's error, in its own words.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (RetainError, *passing)):
            raise
        raise Unavailable(f"{what} cannot be used now: {first_line(error):.200}") from error


def _last(entry: dict[str, Any]) -> str:
    return str(entry["name"]).rstrip("/").rpartition("/")[2]
