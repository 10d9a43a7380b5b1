"""`retain report`: the line's page, made anew from main, the runs' branches and the store."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from cl_steps.report.collect import collect
from cl_steps.report.page import DETAILED, evidently_files, render
from cl_steps.workspace.line import Line, resolve

PAGE = "night.html"


def report(dir: str, open: bool) -> str:
    """Write the page into `reports/` of the workspace (of this folder, for a workspace given by its Git URL)."""
    folder = Path() if "://" in dir else Path(dir)
    page = write_report(resolve(dir), folder / "reports")
    if open:
        webbrowser.open(page.resolve().as_uri())
    return f"the line's page: {page}"


def write_report(line: Line, folder: Path) -> Path:
    """Write `night.html` and the Evidently reports beside it, each whole or not at all; returns the page.

    Raises:
        Unavailable: a remote cannot be reached.
        IntegrityError: an event or a picture is not what it must be.
    """
    story = collect(line, nights_with_pictures=DETAILED)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in evidently_files(story).items():
        _write(folder / name, content)
    page = folder / PAGE
    _write(page, render(story).encode())
    return page


def _write(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(content)
    draft.replace(path)
