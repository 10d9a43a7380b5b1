"""The objects of a store, all of them: listed, followed from folders to their files, deleted. DVC's layout, any store.

An object is called as DVC calls it: the md5 of its content, with `.dir` at its end where it lists a folder's files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from cl_steps.errors import IntegrityError
from cl_steps.progress import progress
from cl_steps.store.availability import reaching
from cl_steps.store.dvc import opened_objects
from cl_steps.store.odb import read_object
from cl_steps.store.vault import at

OBJECT = re.compile(r"[0-9a-f]{32}(\.dir)?")
AT_ONCE = 16
"""Requests to the store."""
Result = TypeVar("Result")


class Objects:
    """A store that is open, and what it held when it was opened: sizes in bytes, by name.

    `drafts` are no objects yet: what is being stored just now, and what killed uploads left, by path.
    """

    def __init__(self, odb: Any) -> None:
        self._odb = odb
        self._listings: dict[str, tuple[str, ...] | None] = {}
        self.sizes, self.drafts = _sizes(odb)

    def with_files(self, names: Collection[str], listed: Collection[str]) -> set[str]:
        """Those names and, of folders among them, the names of their files.

        Raises:
            IntegrityError: a list of files is corrupt, or one that is `listed` is missing.
        """
        folders = {name for name in (*names, *listed) if name.endswith(".dir")}
        unread = sorted(name for name in folders if self._listings.get(name) is None)
        self._listings |= zip(unread, self._each(unread, self._listing, "lists of files"), strict=True)
        absent = sorted(name for name in listed if name in folders and self._listings[name] is None)
        if absent:
            raise IntegrityError(
                f"the store lacks {len(absent)} lists of files that main names ({absent[0]} first): "
                "restore them from a copy of the store; nothing was deleted"
            )
        return {*names, *(file for name in names for file in self._listings.get(name) or ())}

    def bytes_of(self, names: Iterable[str]) -> int:
        """How large those of them are together that the store holds."""
        return sum(self.sizes.get(name, self.drafts.get(name, 0)) for name in names)

    def older_than(self, moment: datetime, names: Iterable[str]) -> set[str]:
        """Those that were written before a moment, by the store's clock; what is gone by now is none of them."""
        chosen = sorted(names)
        written = self._each(chosen, self._written, "objects looked at")
        return {name for name, when in zip(chosen, written, strict=True) if when and when < moment}

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects: folders first, since DVC takes a folder that is there for one that is there whole."""
        chosen = sorted(names)
        for part in ([n for n in chosen if n.endswith(".dir")], [n for n in chosen if not n.endswith(".dir")]):
            self._each(part, self._remove, "objects deleted")

    def _listing(self, name: str) -> tuple[str, ...] | None:
        content = read_object(self._odb, name)
        return None if content is None else tuple(entry["md5"] for entry in json.loads(content))

    def _written(self, name: str) -> datetime | None:
        with suppress(FileNotFoundError):
            when: datetime = self._odb.fs.fs.modified(self._path(name))
            return when if when.tzinfo else when.replace(tzinfo=UTC)
        return None

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._odb.fs.remove(self._path(name))

    def _path(self, name: str) -> str:
        return name if name in self.drafts else str(self._odb.oid_to_path(name))

    def _each(self, names: list[str], function: Callable[[str], Result], label: str) -> list[Result]:
        with reaching("the store"), ThreadPoolExecutor(AT_ONCE) as pool:
            return list(progress(pool.map(function, names), len(names), label))


@contextmanager
def open_objects(store_url: str) -> Iterator[Objects]:
    """The objects of the store at a URL or folder; raises Unavailable, as each method does."""
    # DVC says of a store that it cannot reach that nothing is in it.
    at(store_url).folders()
    with opened_objects(store_url) as odb:
        yield Objects(odb)


def _sizes(odb: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Of the objects, by name, and of DVC's drafts of such, by path."""
    import fsspec

    # DVC's own local file system lists names alone.
    files = fsspec.filesystem("file") if odb.fs.protocol == "local" else odb.fs.fs
    files.invalidate_cache()
    try:
        with reaching("the store"):
            found = files.find(odb.path, detail=True)
    except FileNotFoundError:
        return {}, {}
    sizes = {path: int(entry["size"]) for path, entry in found.items()}
    names = {path: "".join(path.rsplit("/", 2)[1:]) for path in found}
    objects = {name: sizes[path] for path, name in names.items() if OBJECT.fullmatch(name)}
    return objects, {path: sizes[path] for path in found if path.endswith(".tmp")}
