"""`retain report`: the line's page, made anew from main, the runs' branches and the store."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from cl_steps.errors import UsageError
from cl_steps.operations.page import write_page
from cl_steps.report.pages import PAGE, folder_of
from cl_steps.repository.line import DEPLOYMENT, resolve


def report(dir: str, open: bool, to: str = "") -> str:
    """Write the page into `to`, a folder or an fsspec URL; without it into `reports/` of the workspace.

    A workspace that is no folder of its own (a Git URL, a bare repository) has none: there it is `reports/` of the
    folder in which the command runs.

    Raises:
        UsageError: no workspace, or a place to open in a browser that is no folder.
        Unavailable: a remote, or the place, cannot be reached.
        IntegrityError: an event or a picture is not what it must be.
    """
    home = Path(dir) if (Path(dir) / DEPLOYMENT).is_file() else Path()
    place = to or str(home / "reports")
    folder = folder_of(place)
    if open and not folder:
        raise UsageError(f"--open needs a folder, and {place} is none: leave one of --open and --to out")
    write_page(resolve(dir), place)
    page = folder / PAGE if folder else f"{place.rstrip('/')}/{PAGE}"
    if open and isinstance(page, Path):
        webbrowser.open(page.resolve().as_uri())
    return f"the line's page: {page}"
