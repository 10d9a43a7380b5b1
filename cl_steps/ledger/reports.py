"""The reports of a run's steps, `reports/<step>.json`, as whoever reads a run's branch finds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cl_steps.documents import JSON_BYTES, Unreadable, read_json
from cl_steps.errors import IntegrityError
from cl_steps.ledger.lasting import WrongShape
from cl_steps.ledger.report import Report
from cl_steps.pipeline import STAGES


def read_reports(root: Path) -> dict[str, dict[str, Any]]:
    """Every stage's report that lies in `root/reports`, by step name; raises IntegrityError where one is none."""
    found = {}
    for step in STAGES:
        if (root / step.report).is_file():
            document = found[step.name] = read_small(root / step.report)
            if not _is_report(document, step.name):
                raise IntegrityError(f"{step.report} does not say what a report of {step.name} says: trigger a new run")
    return found


def _is_report(document: Any, step: str) -> bool:
    try:
        return Report.from_document(document).step == step
    except WrongShape:
        return False


def read_small(path: Path) -> Any:
    """A JSON document of a run's branch, read within bounds; raises IntegrityError where it is none."""
    try:
        with path.open("rb") as stream:
            return read_json(stream.read(JSON_BYTES + 1))
    except Unreadable as error:
        raise IntegrityError(f"{path.parent.name}/{path.name} cannot be read ({error}): trigger a new run") from error
