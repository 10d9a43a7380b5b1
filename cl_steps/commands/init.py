"""`retain init`: a new line from a diffusers pipeline."""

from __future__ import annotations

from pathlib import Path

from cl_steps.config import parse_overrides
from cl_steps.operations.begin import init_line
from cl_steps.operations.first_state import Sources


def init(
    dir: str,
    base: str | None,
    like: str | None,
    extractor: str | None,
    data: str | None,
    adapter: str | None,
    set: list[str],
) -> str:
    """Make the workspace `dir`; raises as `operations.begin.init_line` does."""
    line = init_line(Path(dir), Sources(base, like, extractor, data, adapter), parse_overrides(set))
    return f"{dir} is ready: put images and metadata.jsonl into {line.landing}, then run `retain night {dir}`"
