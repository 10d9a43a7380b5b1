"""`retain keys`: the keys that sign versions, acts of persons and verdicts, and the file that says whose count."""

from __future__ import annotations

from pathlib import Path

from cl_steps.records.keys import JUDGE, SIGNING, TRUSTED, make_keys, rotate_keys


def keys(folder: str, name: str, rotate: bool) -> str:
    """Make the first keys of a folder, or, with `rotate`, the next ones.

    Raises:
        UsageError: there is a key already (or none to rotate), the name is none, or the folder cannot be written.
    """
    place = Path(folder)
    made = rotate_keys(place, name) if rotate else make_keys(place, name)
    said = (
        f"{place / SIGNING} signs from now on, as {made.new}, and {place / JUDGE} what evaluate and gate find; "
        f"{place / TRUSTED} says whose signatures count"
    )
    if rotate:
        said += f"; what {made.old or 'the key before'} signed until now still counts, and its private key is deleted"
    return said
