"""A landing behind any URL that fsspec reaches: buckets, archives, servers, memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from cl_steps.config import Ingest
from cl_steps.errors import NoUsableData
from cl_steps.landing.entries import Changed, Entry, Listing, TooLarge, listed, most_listed
from cl_steps.store.places import reaching

AT_ONCE = 16
"""Objects that are fetched at the same time: what costs is the way there and back."""


class Bucket:
    """The folder `root` of a file system of fsspec's."""

    at_once = AT_ONCE

    def __init__(self, filesystem: Any, root: str, url: str) -> None:
        self._fs, self._root, self._url = filesystem, root, url

    def listing(self, bounds: Ingest) -> Listing:
        """See `Source`."""
        most = most_listed(bounds)
        with reaching(f"the landing {self._url}", passing=()):
            self._fs.invalidate_cache()
            found: list[Entry | None] = []
            with suppress(FileNotFoundError):
                found.extend(islice(self._objects(bounds), most + 1))
            if not found and not self._fs.isdir(self._root):
                raise NoUsableData(
                    f"the landing {self._url} is not there: make it and put images and metadata.jsonl in it"
                )
        return listed((entry for entry in found[:most] if entry), bounds, whole=len(found) <= most)

    def read(self, entry: Entry, limit: int) -> bytes:
        """See `Source`."""
        content = self._fetch(self._path(entry.name), entry.num_bytes, limit + 1)
        if len(content) > limit:
            raise TooLarge(f"it holds more than {limit} bytes")
        if entry.num_bytes and len(content) != entry.num_bytes:
            raise Changed("it changed while it was read")
        return content

    def _fetch(self, path: str, num_bytes: int, most: int) -> bytes:
        if num_bytes:
            return bytes(self._fs.cat_file(path, start=0, end=min(most, num_bytes + 1)))
        with self._fs.open(path, "rb") as stream:  # empty, or of a size that nobody knows
            return bytes(stream.read(most))

    def _objects(self, bounds: Ingest) -> Iterator[Entry | None]:
        """Every object as it is found; None for a folder, which is looked into."""
        if _is_flat(self._fs):
            for info in self._fs.find(self._root, detail=True).values():
                yield None if str(info["name"]).endswith("/") and not info.get("size") else self._entry(info)
            return
        pending, seen = [self._root], {self._root}
        while pending:
            for entry, folder in self._look_into(pending.pop()):
                is_deep = folder is not None and entry.name.count("/") >= bounds.max_depth
                if folder is None or is_deep or folder in seen:
                    yield Entry(entry.name, entry.num_bytes, fault="too_deep" if is_deep else entry.fault)
                else:
                    seen.add(folder)
                    pending.append(folder)
                    yield None

    def _look_into(self, folder: str) -> Iterator[tuple[Entry, str | None]]:
        """What lies right in a folder, and the folder to look into where it is one; raises where the root is away."""
        try:
            found = self._fs.ls(folder, detail=True)
        except Exception:
            if folder == self._root:
                raise
            yield Entry(self._name(folder), fault="unreadable"), None
            return
        for info in found:
            name = str(info["name"]).rstrip("/")
            if name == folder:  # a file of the folder's own name hides what lies in the folder
                yield Entry(f"{self._name(name)}/", fault="bad_name"), None
            elif info["type"] == "directory":
                yield Entry(self._name(name), fault="bad_name"), name
            else:
                yield self._entry(info), None

    def _entry(self, info: dict[str, Any]) -> Entry:
        path = str(info["name"])
        return Entry(self._name(path), int(info.get("size") or 0), _fault(info) or self._fault_of(path))

    def _fault_of(self, path: str) -> str:
        """Every method of a file system changes the paths that it is given: another object must not come of it."""
        return "" if self._fs._strip_protocol(path) == path else "bad_name"

    def _name(self, path: str) -> str:
        return path.removeprefix(f"{self._root}/") if self._root else path

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if self._root else name


class S3(Bucket):
    """S3: its keys below a prefix as the service itself lists them, a page at a time, and none taken for another.

    s3fs lists a whole bucket into memory with a kilobyte a key, and cuts `?versionId=` off a key that holds it.
    """

    def _objects(self, bounds: Ingest) -> Iterator[Entry | None]:  # noqa: ARG002  (keys lie in no folders)
        bucket, key, _ = self._fs.split_path(self._root)
        prefix = f"{key}/" if key else ""
        for found in self._pages(bucket, prefix):
            name, num_bytes = str(found["Key"]).removeprefix(prefix), int(found["Size"])
            is_folder = not num_bytes and (not name or name.endswith("/"))  # as consoles make them: it holds nothing
            yield None if is_folder else Entry(name or "/", num_bytes, self._fault_of(f"{bucket}/{found['Key']}"))

    def _pages(self, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
        wanted = {"Bucket": bucket, "Prefix": prefix}
        while True:
            page = self._fs.call_s3("list_objects_v2", **wanted)
            yield from page.get("Contents", ())
            if not page.get("IsTruncated"):
                return
            wanted["ContinuationToken"] = page["NextContinuationToken"]

    def _fault_of(self, path: str) -> str:
        bucket, _, key = path.partition("/")
        return "" if self._fs.split_path(path) == (bucket, key, None) else "bad_name"

    def _fetch(self, path: str, num_bytes: int, most: int) -> bytes:
        return super()._fetch(path, num_bytes, most) if num_bytes else b""  # an empty object has no range to ask for


class Memory(Bucket):
    """This process's memory, whose file system hides a name that begins with another name and a `/`."""

    def _objects(self, bounds: Ingest) -> Iterator[Entry | None]:  # noqa: ARG002  (names lie in no folders)
        names = [name for name in list(self._fs.store) if name.startswith(f"{self._root}/")]
        return (Entry(self._name(name), self._fs.store[name].size) for name in names)

    def _fetch(self, path: str, num_bytes: int, most: int) -> bytes:  # noqa: ARG002  (the size is known)
        return bytes(self._fs.store[path].getvalue()[:most])


def _fault(info: dict[str, Any]) -> str:
    if info.get("islink") or info["type"] == "link":
        return "symlink"
    return "" if info["type"] == "file" else "not_a_file"


def _is_flat(filesystem: Any) -> bool:
    """Whether it has a way of its own to list all names at once, as where there are no folders: none hides another."""
    from fsspec.asyn import AsyncFileSystem
    from fsspec.spec import AbstractFileSystem

    kind = type(filesystem)
    own = getattr(kind, "_find", AsyncFileSystem._find)
    return own is not AsyncFileSystem._find or kind.find is not AbstractFileSystem.find
