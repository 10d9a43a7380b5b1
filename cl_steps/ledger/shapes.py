"""Does a document have a shape of `schemas/`? Asked without jsonschema, which takes two seconds to import.

Light paths (Airflow's tasks, the reading of each report) ask it here; a test asks jsonschema the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("schemas")
TYPES: Mapping[str, type | tuple[type, ...]] = {"object": dict, "string": str, "null": type(None)}
ABOUT = {"$schema", "$id", "title", "description"}
"""What a schema says of itself."""


def fits(document: Any, name: str) -> bool:
    """Whether a document has the shape of that name; of a schema, only the keywords of `KEYWORDS` are known."""
    return _fits(document, shape(name))


@cache
def shape(name: str) -> dict[str, Any]:
    """The JSON Schema of a shape."""
    return dict(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    return all(KEYWORDS[word](value, wanted) for word, wanted in schema.items() if word not in ABOUT)


def _is_one(value: Any, wanted: list[Any]) -> bool:
    """Equal, and of the same type: JSON's `true` is not 1."""
    return any(type(value) is type(one) and value == one for one in wanted)


KEYWORDS: Mapping[str, Callable[[Any, Any], bool]] = {
    "type": lambda value, wanted: isinstance(value, TYPES[wanted]),
    "const": lambda value, wanted: _is_one(value, [wanted]),
    "enum": _is_one,
    "pattern": lambda value, wanted: not isinstance(value, str) or re.search(wanted, value) is not None,
    "required": lambda value, wanted: not isinstance(value, dict) or set(wanted) <= value.keys(),
    "properties": lambda value, wanted: (
        not isinstance(value, dict) or all(_fits(value[key], wanted[key]) for key in wanted if key in value)
    ),
    "anyOf": lambda value, wanted: any(_fits(value, one) for one in wanted),
}
"""What each keyword asks of a value; as in JSON Schema, most ask nothing of a value of another type."""
