"""Which Retain this is: of a source tree what pyproject.toml says, else what was installed. Nothing heavy."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def version() -> str:
    """Such as `0.2.0`. What an editable install was called is out of date as soon as its source tree moves on."""
    if PYPROJECT.is_file():
        return str(tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["version"])
    return metadata.version("retain")
