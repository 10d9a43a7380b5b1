"""What DVC calls bytes: a file by its md5, a folder by the md5 of the list of its files, with `.dir` at its end.

No DVC is imported. The list is JSON, sorted by the parts of the files' paths; the name of a folder is that of its list.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from cl_steps.errors import IntegrityError

OBJECT = re.compile(r"[0-9a-f]{32}(\.dir)?")
FOLDER = ".dir"
OBJECTS = "files/md5"
"""Where objects lie in a store, and in a cache of DVC's."""
PART_BYTES = 2**20

Listing = Mapping[str, str]
"""The files of a folder: path in it to md5."""

_md5 = partial(hashlib.md5, usedforsecurity=False)


@dataclass(frozen=True)
class Digests:
    """Bytes as they are: their digests, as hex, their number, and they themselves where asked for."""

    md5: str
    sha256: str
    num_bytes: int
    content: bytes = b""


def file_md5(path: Path) -> str:
    """What DVC calls a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, _md5).hexdigest()


def bytes_md5(content: bytes) -> str:
    """What DVC calls a file of that content."""
    return _md5(content).hexdigest()


def folder_md5(folder: Path) -> str:
    """What DVC calls a folder."""
    return bytes_md5(listing_bytes(folder_listing(folder))) + FOLDER


def digest(stream: IO[bytes], keep: bool) -> Digests:
    """Read a stream to its end, once, a part at a time; `keep` keeps all of it in memory."""
    md5, sha256, parts, size = _md5(), hashlib.sha256(), [], 0
    while part := stream.read(PART_BYTES):
        md5.update(part)
        sha256.update(part)
        size += len(part)
        if keep:
            parts.append(part)
    return Digests(md5.hexdigest(), sha256.hexdigest(), size, b"".join(parts))


def folder_listing(folder: Path) -> Listing:
    """The files of a folder on disk, however deep."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_md5(path) for path in files}


def listing_bytes(listing: Listing) -> bytes:
    """The list of a folder's files, byte for byte as DVC writes it."""
    paths = sorted(listing, key=lambda path: tuple(path.split("/")))
    return json.dumps([{"md5": listing[path], "relpath": path} for path in paths], sort_keys=True).encode()


def read_listing(content: bytes, name: str) -> Listing:
    """The files of the folder `name`; raises IntegrityError where it is no list, or a path leads out of the folder."""
    try:
        listing = {str(entry["relpath"]): str(entry["md5"]) for entry in json.loads(content)}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise IntegrityError(f"object {name} is no list of files: restore the store from a copy") from error
    for path, md5 in listing.items():
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts or not parts.parts or not OBJECT.fullmatch(md5):
            raise IntegrityError(f"object {name} lists {path!r:.80}, which is no file of a folder: do not use it")
    return listing


def object_path(name: str) -> str:
    """Where an object lies in a store, and in a cache of DVC's."""
    return f"{OBJECTS}/{name[:2]}/{name[2:]}"
