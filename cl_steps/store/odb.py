"""One object of a store after the other: read and checked, followed, copied. `odb` is DVC's database of a store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cl_steps.errors import IntegrityError, Unavailable

NOT_ITSELF = "in the store is not what its name says: restore the store from a copy"


def read_object(odb: Any, oid: str) -> bytes | None:
    """An object's bytes; None where the store has none.

    Raises:
        IntegrityError: it is not what its name says.
        Unavailable: the store cannot be reached.
    """
    try:
        content = bytes(odb.fs.cat_file(odb.oid_to_path(oid)))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"object {oid} cannot be fetched from the store: {error}") from error
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != oid.removesuffix(".dir"):
        raise IntegrityError(f"object {oid} {NOT_ITSELF}")
    return content


def with_files(odb: Any, oid: str) -> Iterator[str]:
    """An object and, where it is a folder that is there, the objects of its files."""
    yield oid
    if oid.endswith(".dir") and odb.exists(oid):
        listing = odb.fs.cat_file(odb.oid_to_path(oid))
        yield from (entry["md5"] for entry in json.loads(listing))


def copy_objects(odb: Any, target: Path, oids: Iterable[str]) -> None:
    """Copy objects, and the files of folders, to a store in the folder `target`, each checked.

    Raises:
        IntegrityError: an object is missing or is not what its name says.
        Unavailable: the store cannot be reached.
    """
    for name in dict.fromkeys(found for oid in oids for found in with_files(odb, oid)):
        _copy(odb, name, target / "files" / "md5" / name[:2] / name[2:])


def _copy(odb: Any, oid: str, place: Path) -> None:
    if place.is_file():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}.draft")
    try:
        odb.fs.get_file(odb.oid_to_path(oid), str(draft))
    except FileNotFoundError as error:
        raise IntegrityError(f"object {oid} is missing from the store: restore the store from a copy") from error
    except OSError as error:
        raise Unavailable(f"object {oid} cannot be fetched from the store: {error}") from error
    with draft.open("rb") as stream:
        found = hashlib.file_digest(stream, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
    if found != oid.removesuffix(".dir"):
        draft.unlink()
        raise IntegrityError(f"object {oid} {NOT_ITSELF}")
    draft.replace(place)
