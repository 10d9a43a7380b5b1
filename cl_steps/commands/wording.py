"""What several commands say in the same way: values, moments and sizes as text, and a page as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cl_steps.errors import UsageError

NONE = "-"


def short_value(value: Any) -> str:
    """A parameter's value, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def moment(at: object) -> str:
    """When something was, to the minute."""
    return str(at or NONE)[:16].replace("T", " ")


def byte_size(num_bytes: int) -> str:
    """A number of bytes in words, in powers of 1000."""
    number, unit = float(num_bytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def write_page(file: str, page: str) -> None:
    """Write a page whole or not at all; raises UsageError where it cannot be written."""
    path = Path(file)
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_text(page, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror or error}") from error
