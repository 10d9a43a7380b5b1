"""One self-contained page for a line: no scripts, nothing loaded from anywhere, every text escaped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cl_steps.report.overview import Overview
from cl_steps.report.view import evidently_name, page_view

if TYPE_CHECKING:
    from jinja2 import Environment

DETAILED = 12
"""So many nights, the latest, have a section of their own; all are in the table."""


def render(overview: Overview, detailed: int = DETAILED) -> str:
    """The page as HTML; the same overview gives the same page."""
    return environment().get_template("page.html.j2").render(page=page_view(overview, detailed))


def evidently_files(overview: Overview, detailed: int = DETAILED) -> dict[str, bytes]:
    """The Evidently reports that the page links to, by the name of the file beside it."""
    nights = overview.nights[-detailed:]
    return {
        evidently_name(n): n.pictures.drift["evidently.html"] for n in nights if "evidently.html" in n.pictures.drift
    }


def environment() -> Environment:
    """The templates of this folder: everything escaped, nothing undefined."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
