"""What a step found, `reports/<step>.json`, as a type."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from cl_steps.ledger.lasting import IsNumber, Lasting, Sha256

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
