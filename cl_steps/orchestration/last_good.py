"""The last `lines.yaml` without a fault, kept in Airflow's home, for tasks that are under way when it is broken.

A task's process reads the DAG anew when it starts, and when its pod or a person's answer brings it back. What began
with settings that could be read ends with them, whatever somebody typed since; nothing new begins by them.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from cl_steps.errors import UsageError
from cl_steps.orchestration.registry import Entry, line_called

NAME = "retain-lines.yaml"
LOG = logging.getLogger("retain.lines")


def kept() -> Path:
    """Where the copy lies: what one process of Airflow writes, the others on its machine read."""
    from airflow.configuration import get_airflow_home

    return Path(get_airflow_home()) / NAME


def keep(path: Path) -> None:
    """Copy a `lines.yaml` that has no fault; a home that cannot be written keeps none."""
    copy = kept()
    try:
        content = path.read_bytes() if path.is_file() else b""
        if not content or (copy.is_file() and copy.read_bytes() == content):
            return
        with tempfile.NamedTemporaryFile(dir=copy.parent, prefix=f"{NAME}.", delete=False) as file:
            file.write(content)
        os.replace(file.name, copy)  # noqa: PTH105  (a plain rename: readers see the one or the other)
    except OSError as error:
        LOG.debug("%s is not kept: %s", path, error)


def line_as_it_was(name: str) -> Entry | None:
    """A line as the last good reading had it; None where it had none."""
    if not kept().is_file():
        return None
    try:
        return line_called(name, kept())
    except UsageError:
        return None
