"""A DVC store: its objects and its folders, listed, read, stored, copied, deleted and digested again. Any URL of DVC's.

    with open_store("s3://bucket/line") as store:
        listing = store.listing("27e8...dir")          # what is in a folder
        store.fetch(listing["weights"], path)          # a file, checked against its name

An object is called as DVC calls it: the md5 of its content, with `.dir` at its end where it lists a folder's files.
Nothing is checked out, and a workspace is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any, TypeVar

from cl_steps.errors import IntegrityError, Unavailable
from cl_steps.progress import progress
from cl_steps.store.digests import (
    FOLDER,
    OBJECT,
    OBJECTS,
    PART_BYTES,
    Digests,
    Listing,
    bytes_md5,
    digest,
    file_md5,
    folder_listing,
    listing_bytes,
    object_path,
    read_listing,
)
from cl_steps.store.dvc import opened
from cl_steps.store.inventory import Inventory
from cl_steps.store.places import Place, open_place, reaching
from cl_steps.store.pointers import Out

if TYPE_CHECKING:
    from dvc.repo import Repo

AT_ONCE = 16
"""Requests to the store."""
READ_AT_ONCE = 8
"""Objects that are read at the same time, a part of each in memory."""
STORE = "the store"
Result = TypeVar("Result")


class Store:
    """A store that is open; each method raises Unavailable where it cannot be used."""

    def __init__(self, odb: Any) -> None:
        self._odb = odb
        self._listings: dict[str, Listing] = {}
        root = str(odb.path).removesuffix(f"/{OBJECTS}")
        # DVC's own local file system lists names alone.
        self.place = open_place(root, label=STORE) if odb.fs.protocol == "local" else Place(odb.fs.fs, root, STORE)

    @classmethod
    def of(cls, repo: Repo) -> Store:
        """The store of a workspace that DVC has opened."""
        return cls(repo.cloud.get_remote_odb("store"))

    def inventory(self) -> Inventory:
        """Everything that is there now."""
        # DVC says of a store that it cannot reach that nothing is in it.
        self.place.folders()
        return Inventory.of(self.place)

    def refuse_empty(self) -> None:
        """Raise Unavailable where it holds nothing at all: a folder may not be mounted."""
        if "files" not in self.place.folders():
            where = self._odb.fs.unstrip_protocol(self.place.root)
            raise Unavailable(f"the store {where} holds no object at all: is it the right one, and mounted?")

    def read(self, name: str) -> bytes | None:
        """An object's bytes; None where there is none. Raises IntegrityError where it is not what its name says."""
        try:
            with reaching(f"object {name} of the store"):
                content = bytes(self._odb.fs.cat_file(self._odb.oid_to_path(name)))
        except FileNotFoundError:
            return None
        _refuse_other(name, bytes_md5(content))
        return content

    @contextmanager
    def stream(self, name: str) -> Iterator[IO[bytes] | None]:
        """An object as a seekable stream, of which only what is read is fetched; not checked. None where it is gone."""
        with reaching(STORE):
            try:
                stream = self._open(name)
            except FileNotFoundError:
                stream = None
        if stream is None:
            yield None
            return
        with stream, reaching(STORE):
            yield stream

    def fetch(self, name: str, path: Path) -> None:
        """Bring an object here, whole or not at all; raises IntegrityError where it is missing or another."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        try:
            with reaching(f"object {name} of the store"):
                self._odb.fs.get_file(self._odb.oid_to_path(name), str(draft))
        except FileNotFoundError as error:
            raise IntegrityError(f"object {name} is missing from the store: restore the store from a copy") from error
        try:
            _refuse_other(name, file_md5(draft))
        except IntegrityError:
            draft.unlink()
            raise
        draft.replace(path)

    def listing(self, folder: str) -> Listing | None:
        """The files of a folder; None where it is not there (any more). Raises IntegrityError where it is damaged."""
        if folder not in self._listings:
            content = self.read(folder)
            if content is None:
                return None
            self._listings[folder] = read_listing(content, folder)
        return self._listings[folder]

    def files(self, folder: str, names: Iterable[str]) -> dict[str, bytes]:
        """The files of a folder whose names match (as `fnmatch` does); those that are not there any more are left out.

        Raises:
            IntegrityError: an object is not what its name says.
        """
        patterns = list(names)
        listing = self.listing(folder) or {}
        wanted = sorted(name for name in listing if any(fnmatchcase(name, pattern) for pattern in patterns))
        found = {name: self.read(listing[name]) for name in wanted}
        return {name: content for name, content in found.items() if content is not None}

    def missing(self, outs: Iterable[Out]) -> list[str]:
        """The paths of those outputs that are not there whole."""
        self.place.folders()  # as for an inventory
        return [str(out["path"]) for out in outs if not self._is_whole(str(out["md5"]))]

    def with_files(self, names: Collection[str], listed: Collection[str]) -> set[str]:
        """Those names and, of folders among them, the names of their files.

        Raises:
            IntegrityError: a list of files is damaged, or one that is `listed` is missing.
        """
        folders = sorted(name for name in {*names, *listed} if name.endswith(FOLDER))
        found = dict(zip(folders, self._each(folders, self.listing, "lists of files"), strict=True))
        absent = sorted(name for name in listed if name in found and found[name] is None)
        if absent:
            raise IntegrityError(
                f"the store lacks {len(absent)} lists of files that main names ({absent[0]} first): "
                "restore them from a copy of the store; nothing was deleted"
            )
        return {*names, *(file for name in names for file in (found.get(name) or {}).values())}

    def digests(self, names: Collection[str], keep: Collection[str] = ()) -> dict[str, Digests | None]:
        """What those objects really are, each read from its first byte to its last; None where there is none.

        Args:
            names: of the objects.
            keep: those among them whose bytes are wanted: all of them are in memory at once.
        """
        chosen, kept = sorted(set(names)), frozenset(keep)
        found = self._each(chosen, lambda name: self._digest(name, name in kept), "verify: objects", READ_AT_ONCE)
        return dict(zip(chosen, found, strict=True))

    def put(self, changed: Path, kept: Listing | None = None) -> Out:
        """Store a folder of the files on disk in the folder `changed`, and of files that the store has (`kept`)."""
        added = folder_listing(changed)
        listing = {**(kept or {}), **added}
        content = listing_bytes(listing)
        name = bytes_md5(content) + FOLDER
        with reaching(STORE), TemporaryDirectory(prefix="retain-") as scratch:
            (Path(scratch) / "listing").write_bytes(content)
            for path, md5 in added.items():
                self._add(md5, changed / path)
            # The list comes last: a folder that is there is there whole.
            self._add(name, Path(scratch) / "listing")
            sizes = [self._odb.fs.size(self._odb.oid_to_path(md5)) for md5 in listing.values()]
        return {"md5": name, "size": sum(sizes), "nfiles": len(listing)}

    def copy(self, names: Iterable[str], target: Path) -> None:
        """Copy objects, and the files of folders, to a store in the folder `target`; raises as `fetch` does."""
        for name in names:
            listing = self.listing(name) or {} if name.endswith(FOLDER) else {}
            for part in (*listing.values(), name):
                if not (target / object_path(part)).is_file():
                    self.fetch(part, target / object_path(part))

    def older_than(self, moment: datetime, names: Iterable[str]) -> set[str]:
        """Those that were written before a moment, by the store's clock; what is gone by now is none of them."""
        chosen = sorted(names)
        written = self._each(chosen, self._written, "objects looked at")
        return {name for name, when in zip(chosen, written, strict=True) if when and when < moment}

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects: folders first, since DVC takes a folder that is there for one that is there whole."""
        chosen = sorted(names)
        for part in ([n for n in chosen if n.endswith(FOLDER)], [n for n in chosen if not n.endswith(FOLDER)]):
            self._each(part, self._remove, "objects deleted")

    def _is_whole(self, name: str) -> bool:
        there: bool = self._odb.exists(name)
        if not (there and name.endswith(FOLDER)):
            return there
        return all(self._odb.exists(md5) for md5 in (self.listing(name) or {}).values())

    def _open(self, name: str, **options: Any) -> IO[bytes]:
        stream: IO[bytes] = self._odb.fs.open(self._odb.oid_to_path(name), "rb", **options)
        return stream

    def _digest(self, name: str, keep: bool) -> Digests | None:
        try:
            # Of what is written to a bucket in parts, fsspec would otherwise fetch 50 MB at once.
            with reaching(f"object {name} of the store"), self._open(name, block_size=8 * PART_BYTES) as stream:
                return digest(stream, keep)
        except FileNotFoundError:
            return None

    def _add(self, name: str, path: Path) -> None:
        from dvc_objects.fs.local import LocalFileSystem

        self._odb.add(str(path), LocalFileSystem(), name)
        if not self._odb.exists(name):
            raise Unavailable(f"the store did not take object {name}: try again")

    def _written(self, name: str) -> datetime | None:
        with suppress(FileNotFoundError):
            when: datetime = self._odb.fs.fs.modified(self._path(name))
            return when if when.tzinfo else when.replace(tzinfo=UTC)
        return None

    def _remove(self, name: str) -> None:
        self._listings.pop(name, None)
        with suppress(FileNotFoundError):
            self._odb.fs.remove(self._path(name))

    def _path(self, name: str) -> str:
        """Where an object lies; a draft is called by its path."""
        return str(self._odb.oid_to_path(name)) if OBJECT.fullmatch(name) else name

    def _each(
        self, names: list[str], function: Callable[[str], Result], label: str, at_once: int | None = None
    ) -> list[Result]:
        with reaching(STORE), ThreadPoolExecutor(at_once or AT_ONCE) as pool:
            return list(progress(pool.map(function, names), len(names), label))


@contextmanager
def open_store(url: str) -> Iterator[Store]:
    """The store at a URL or in a folder, with no workspace."""
    with TemporaryDirectory(prefix="retain-") as scratch, opened(Path(scratch), url, no_scm=True) as repo:
        yield Store.of(repo)


def _refuse_other(name: str, md5: str) -> None:
    if md5 != name.removesuffix(FOLDER):
        raise IntegrityError(f"object {name} in the store is not what its name says: restore the store from a copy")
