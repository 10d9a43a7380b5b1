"""`retain check`: what would be taken in of a folder or URL, and why the rest would not; it takes in nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cl_steps.config import RunSpec, load_params, parse_overrides
from cl_steps.operations.check import check as check_place
from cl_steps.operations.check import check_text
from cl_steps.operations.stages import template

BASE = "state/base"


def check(folder: str, dir: str, set: list[str], base: str | None, json: bool) -> str | dict[str, Any]:
    """Look at the landing in `folder` with the parameters of the workspace `dir`, or those that a new one gets.

    Raises:
        NoUsableData: there is no such folder.
        UsageError: a parameter is wrong, or the base is none.
        Unavailable: it cannot be reached now.
    """
    root = Path(dir)
    is_workspace = (root / "params.yaml").is_file()
    params = load_params(root if is_workspace else template("params.yaml").parent, RunSpec(set=parse_overrides(set)))
    found = check_place(folder, params, _base(root, base))
    return found if json else check_text(found)


def _base(root: Path, base: str | None) -> Path | None:
    if base:
        from cl_steps.models.loading import check_index, folder_of

        source = folder_of(base)
        check_index(source, base)
        return source
    return root / BASE if (root / BASE / "model_index.json").is_file() else None
