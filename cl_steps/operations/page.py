"""The line's page, made anew from main, the runs' branches and the store."""

from __future__ import annotations

from pathlib import Path

from cl_steps.report.collect import collect
from cl_steps.report.page import DETAILED, evidently_files, render
from cl_steps.report.pages import PAGE, opened, publish
from cl_steps.repository.line import Line


def write_report(line: Line, folder: Path) -> Path:
    """Write `night.html` and the Evidently reports beside it, each whole or not at all; returns the page.

    Raises:
        Unavailable: a remote, or the folder, cannot be reached.
        IntegrityError: an event or a picture is not what it must be.
    """
    write_page(line, str(folder))
    return folder / PAGE


def write_page(line: Line, place: str) -> None:
    """Write the page and the Evidently reports beside it into a folder or URL; raises as `write_report` does."""
    kept = opened(place)
    overview = collect(line, nights_with_pictures=DETAILED)
    publish(kept, render(overview).encode(), evidently_files(overview))
