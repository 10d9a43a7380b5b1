"""`retain verify`: whether versions are what main says, signed by whom it trusts, and whole on the store."""

from __future__ import annotations

from typing import Any

from cl_steps.errors import FaultsFound
from cl_steps.repository.line import resolve
from cl_steps.verify.authenticity import trust_of
from cl_steps.verify.verification import verify as verify_line


def verify(version: str, all: bool, keys: str | None, dir: str, json: bool) -> dict[str, Any] | str:
    """Verify a version, or all of them and main's own tree.

    Raises:
        FaultsFound: something is not as it should be; everything that was found goes with it.
        UsageError: there is no such version, or the trusted keys are not right.
        Unavailable: the Git remote or the store cannot be reached.
    """
    line = resolve(dir)
    found = verify_line(line, None if all else version, trust_of(keys, line.trusted_keys))
    result = found.document() if json else found.text()
    if found.faults:
        raise FaultsFound(found.sentence(), result)
    return result
