"""Where the web server finds a line's pages, and with whose credentials."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path
from typing import Any

from cl_steps.errors import UsageError
from cl_steps.orchestration.registry import Entry
from cl_steps.report import pages
from cl_steps.repository.line import DEPLOYMENT

PATIENCE = {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 2}}
"""A person waits in front of the tab: seconds."""


def page_place(entry: Entry) -> str:
    """`reports/` of a workspace that is a folder here, else `pages/` of the line's work; empty where it has neither."""
    if (Path(entry.workspace) / DEPLOYMENT).is_file():
        return str(Path(entry.workspace) / "reports")
    return f"{entry.work.rstrip('/')}/pages" if entry.work else ""


def read_page(entry: Entry, name: str) -> bytes | None:
    """One of a line's pages, or None.

    Raises:
        UsageError: this web server cannot open the place.
        Unavailable: the place cannot be reached.
    """
    place = page_place(entry)
    return pages.read_page(place, name, storage_options(place, entry)) if place else None


def storage_options(place: str, entry: Entry) -> dict[str, Any]:
    """fsspec's options for a line's own credentials; none where the machine's are used, or none are needed."""
    if not place.startswith("s3://"):
        return {}
    folder = Path(entry.credentials) if entry.credentials else None
    values = _section(folder, "aws-credentials") | _section(folder, "aws-config")
    named = {
        "key": values.get("aws_access_key_id"),
        "secret": values.get("aws_secret_access_key"),
        "token": values.get("aws_session_token"),
    }
    client = {"region_name": values.get("region"), "endpoint_url": values.get("endpoint_url")}
    given = {name: value for name, value in named.items() if value}
    return {**given, "client_kwargs": {k: v for k, v in client.items() if v}, "config_kwargs": PATIENCE}


def _section(folder: Path | None, name: str) -> dict[str, str]:
    """The section `default` of one of the AWS tools' files; empty where there is none."""
    if not folder or not (folder / name).is_file():
        return {}
    parser = ConfigParser(interpolation=None)
    try:
        parser.read_string((folder / name).read_text(encoding="utf-8"))
    except Exception as error:
        raise UsageError(f"{folder / name} is no file of the AWS tools: mend the Secret it comes from") from error
    return dict(parser["default"]) if parser.has_section("default") else {}


def where_written(entry: Entry) -> str:
    """What a person does where a line has no page."""
    place = page_place(entry)
    if not place:
        return "A line given by its Git URL keeps its pages in its `work`: name one in `lines.yaml`."
    to = "" if (Path(entry.workspace) / DEPLOYMENT).is_file() else f" --to {place}"
    return f"The next run writes it. To have it now: `retain report {entry.workspace}{to}`"
