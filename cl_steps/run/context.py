"""What a step is given, and the report that it leaves."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from cl_steps.config import Params, RunSpec, load_params, load_run
from cl_steps.documents import Json, write_json
from cl_steps.ledger.reports import REPORT_SCHEMA, Report, read_reports


@dataclass(frozen=True)
class StepReport:
    """What a step found: its verdict (if it gives one), one sentence why, and the figures behind it.

    Figures are JSON values and hold no times: the same inputs give the same report. The rest is not written into it:
    how many processes computed, the seconds of earlier tries that a checkpoint remembers, and what to do once the
    result is stored.
    """

    verdict: str | None = None
    why: str = ""
    figures: Json = field(default_factory=dict)
    processes: int = 1
    earlier_seconds: float = 0.0
    once_stored: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Context:
    """The workspace checkout that a step reads and writes, its parameters, and a place for checkpoints."""

    root: Path
    params: Params
    run: RunSpec
    work: str | Path | None = None

    @classmethod
    def of(cls, root: Path, work: str | Path | None = None) -> Context:
        """The context of the workspace at `root`; raises UsageError where its YAML files are not right."""
        run = load_run(root)
        return cls(root, load_params(root, run), run, work)

    def path(self, name: str) -> Path:
        """A path that the step reads, such as `state/base`."""
        return self.root / name

    def fresh(self, name: str) -> Path:
        """A folder that the step writes, empty."""
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    @cached_property
    def reports(self) -> dict[str, Report]:
        """The reports of the steps before, by step name."""
        return read_reports(self.root)

    def figures(self, step: str) -> dict[str, Any]:
        """The figures of a step before; empty where it left none."""
        return self.reports[step].figures if step in self.reports else {}


def write_report(
    root: Path, step: str, run: str, report: StepReport, status: Literal["done", "skipped"] = "done"
) -> None:
    """Write `reports/<step>.json`, whole or not at all."""
    document = Report.from_document(
        {
            "schema": REPORT_SCHEMA,
            "step": step,
            "run": run,
            "status": status,
            "code": code_digest(),
            "verdict": report.verdict,
            "why": report.why,
            "figures": dict(report.figures),
        }
    )
    write_json(root / "reports" / f"{step}.json", document.document())


@cache
def code_digest() -> str:
    """SHA-256 over the package's own sources: what a step's result depends on beside data and parameters.

    Who runs the steps is not among it: `orchestration` holds other files once it is installed.
    """
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        if package / "orchestration" in path.parents:
            continue
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
