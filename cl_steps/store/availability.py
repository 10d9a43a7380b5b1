"""What it means where a place cannot be used: file systems and object stores raise errors of many libraries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cl_steps.errors import RetainError, Unavailable, first_line


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
