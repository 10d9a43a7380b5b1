"""What a version is called: `v7`, its record's file, its tag; and whether there is one of that name."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

from cl_steps.errors import UsageError

RECORD = re.compile(r"v((?!0000)[0-9]{4}|[1-9][0-9]{4,8})\.json")
"""What a version's record is called in `versions/`; other files there belong to it."""


def version_file(version: str) -> str:
    """The path of a version's record; raises UsageError for what cannot be a version."""
    if not re.fullmatch(r"v[1-9][0-9]{0,8}", version):
        raise UsageError(f"{version!r} is not a version such as v7: `retain versions` lists them")
    return f"versions/v{int(version[1:]):04d}.json"


def existing(version: str, versions: Container[str]) -> str:
    """The version, if it is one of `versions`; raises UsageError where it is not, or cannot be one."""
    version_file(version)
    if version not in versions:
        raise UsageError(f"there is no version {version!r}: `retain versions` lists them")
    return version


def numbers_of(names: Iterable[str]) -> list[int]:
    """The versions whose records are among the names of files, the oldest first."""
    return sorted(int(found[1]) for found in map(RECORD.fullmatch, names) if found)


def tag_of(number: int) -> str:
    """A version's tag, in GTO's convention."""
    return f"model@v0.0.{number}"
