"""The reports of a run's steps, `reports/<step>.json`, as whoever reads a run's branch finds them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from cl_steps.documents import JSON_BYTES, Unreadable, read_json
from cl_steps.errors import IntegrityError
from cl_steps.ledger.lasting import IsNumber, Lasting, Sha256, WrongShape
from cl_steps.pipeline import STAGES

REPORT_SCHEMA = 1


class Report(Lasting):
    """The report of a step."""

    shape: Annotated[Literal[1], IsNumber] = Field(alias="schema")
    step: Literal["ingest", "drift", "update", "evaluate", "gate"]
    run: str
    status: Literal["done", "skipped"]
    code: Sha256
    verdict: str | None
    why: str
    figures: dict[str, Any]

    @property
    def done(self) -> bool:
        """Whether the step ran, and was not skipped."""
        return self.status == "done"


def read_reports(root: Path) -> dict[str, Report]:
    """Every stage's report that lies in `root/reports`, by step name; raises IntegrityError where one is none."""
    found = {}
    for step in STAGES:
        if (root / step.report).is_file():
            found[step.name] = _report(step.report, read_small(root / step.report), step.name)
    return found


def _report(path: str, document: Any, step: str) -> Report:
    try:
        report = Report.from_document(document)
        if report.step == step:
            return report
    except WrongShape:
        pass
    raise IntegrityError(f"{path} does not say what a report of {step} says: trigger a new run")


def read_small(path: Path) -> Any:
    """A JSON document of a run's branch, read within bounds; raises IntegrityError where it is none."""
    try:
        with path.open("rb") as stream:
            return read_json(stream.read(JSON_BYTES + 1))
    except Unreadable as error:
        raise IntegrityError(f"{path.parent.name}/{path.name} cannot be read ({error}): trigger a new run") from error
