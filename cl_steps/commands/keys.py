"""`retain keys`: the key that signs versions and the acts of persons, and the file that says whose signatures count."""

from __future__ import annotations

from pathlib import Path

from cl_steps.lineage.keys import SIGNING, TRUSTED, make_keys, rotate_keys


def keys(folder: str, name: str, rotate: bool) -> str:
    """Make the first key of a folder, or, with `rotate`, the next one.

    Raises:
        UsageError: there is a key already (or none to rotate), the name is none, or the folder cannot be written.
    """
    place = Path(folder)
    made = rotate_keys(place, name) if rotate else make_keys(place, name)
    said = f"{place / SIGNING} signs from now on, as {made.new}; {place / TRUSTED} says whose signatures count"
    if rotate:
        said += f"; what {made.old or 'the key before'} signed until now still counts, and its private key is deleted"
    return said
