"""Where a line's pages are kept: a folder, or a place that an fsspec URL names. `retain report` writes, Airflow's tab
reads. Names are flat and of two kinds: the page, and the Evidently reports that it links to.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cl_steps.config import RUN_ID
from cl_steps.documents import Json
from cl_steps.errors import Unavailable, UsageError
from cl_steps.store.places import Place, open_place

PAGE = "night.html"
EVIDENTLY = re.compile(rf"evidently-{RUN_ID.pattern}\.html")
MAX_BYTES = 64 * 2**20
"""A larger file is none of ours."""


def known(name: str) -> bool:
    """Whether a file of that name can be one of a line's pages."""
    return name == PAGE or EVIDENTLY.fullmatch(name) is not None


def folder_of(place: str) -> Path | None:
    """The folder that a place names, by its path or a `file://` URL; None where it is a place of another kind."""
    if place.startswith("file://"):
        return Path(unquote(urlsplit(place).path))
    return None if "://" in place else Path(place)


def opened(place: str) -> Place:
    """The place, for `publish`; raises UsageError for a URL that nothing here can open."""
    return open_place(folder_of(place) or place)


def publish(place: Place, page: bytes, reports: Mapping[str, bytes]) -> None:
    """Keep a page and the reports that it links to; older reports, to which no link leads any more, are removed.

    The page comes last: whoever reads it meanwhile finds all that it links to.

    Raises:
        Unavailable: the place cannot be written.
    """
    assert all(EVIDENTLY.fullmatch(name) for name in reports)
    try:
        for name, content in reports.items():
            place.write(name, content)
        place.write(PAGE, page)
        for name in place.names():
            if EVIDENTLY.fullmatch(name) and name not in reports:
                place.delete(name)
    except Unavailable as error:
        raise Unavailable(f"the pages cannot be written: {error.__cause__ or error}") from error


def read_page(place: str, name: str, options: Json | None = None) -> bytes | None:
    """A page; None where there is none. `options` are fsspec's for the place, credentials above all.

    Raises:
        UsageError: a URL that nothing here can open.
        Unavailable: the place cannot be reached.
    """
    assert known(name)
    folder = folder_of(place)
    content = _from_folder(folder, name) if folder else _from_url(place, name, options or {})
    return None if content is None or len(content) > MAX_BYTES else content


def _from_folder(folder: Path, name: str) -> bytes | None:
    """A plain file of a folder; links are not followed, neither of the folder nor in it."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        inside = os.open(folder, flags | os.O_DIRECTORY)
        try:
            # O_NONBLOCK: opening a pipe would wait for its writer.
            file = os.open(name, flags | os.O_NONBLOCK, dir_fd=inside)
        finally:
            os.close(inside)
    except OSError:
        return None
    with os.fdopen(file, "rb") as stream:
        return stream.read(MAX_BYTES + 1) if stat.S_ISREG(os.fstat(file).st_mode) else None


def _from_url(url: str, name: str, options: Json) -> bytes | None:
    from fsspec.core import url_to_fs

    try:
        files, root = url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{url} cannot be opened here: {error}") from error
    try:
        return bytes(files.cat_file(f"{str(root).rstrip('/')}/{name}", start=0, end=MAX_BYTES + 1))
    except FileNotFoundError:
        return None
    except Exception as error:  # object stores raise errors of many libraries
        raise Unavailable(f"{url} cannot be read now ({type(error).__name__}): try again later") from error
