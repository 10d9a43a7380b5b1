"""A made-up main, as a verification reads it: files, each added by a commit of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cl_steps.documents import json_text
from cl_steps.repository.history import Commit
from cl_steps.verify.evidence import Evidence
from tests.lasting import whole_event, whole_record

EARLIER = "2026-11-19T02:00:00+00:00"
RUN = whole_event({"kind": "run", "run": "r-1", "outcome": "no_update"})


def book_of(files: Mapping[str, Any]) -> Evidence:
    """Main as it is read, each file added by a commit of its own."""
    contents = {path: said if isinstance(said, bytes) else json_text(said).encode() for path, said in files.items()}
    commits = [Commit(f"{place:040d}", "", (("A", path),)) for place, path in enumerate(contents)]
    return Evidence(None, None, commits, contents, {})  # type: ignore[arg-type]


def record(version: str, parent: str | None = None, **said: Any) -> dict[str, Any]:
    return whole_record({"version": version, "parent": parent, **said})


def whys(findings: Any) -> set[tuple[str, str]]:
    return {(finding.where, finding.why) for finding in findings}
