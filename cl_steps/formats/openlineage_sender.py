"""Sends the events of a step by OpenLineage's own client. Imported only where somebody wants to hear of steps."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from openlineage.client.client import OpenLineageClient

from cl_steps.errors import UsageError
from cl_steps.formats.openlineage_events import events_of
from cl_steps.pipeline import Step
from cl_steps.repository.line import Line

LOCAL = ("file", "console", "noop")
"""Transports that need no network (a file's path must be none of a remote place)."""
TALKATIVE = "urllib3.connectionpool"


class _Client(OpenLineageClient):
    """The client, but for files that a workspace could bring along."""

    @staticmethod
    def _find_yaml_config_path() -> str | None:
        path = os.environ.get("OPENLINEAGE_CONFIG")
        if path and not os.access(path, os.R_OK):
            raise UsageError(f"OPENLINEAGE_CONFIG names {path!r}, which cannot be read")
        return path or None


class Sender:
    """One client; made and used by one thread."""

    def __init__(self, offline: bool) -> None:
        self._silent = _hush()
        self._client = _Client()
        if offline and not _is_local(self._client.transport):
            raise UsageError("the run may use no network, and the transport is no file")

    def tell(self, line: Line, run: str, step: Step, kind: str, times: tuple[str, str], error: str) -> None:
        """Build and send what there is to tell at one moment; `times` are when the step began, and now."""
        for event in events_of(line, run, step, kind, times, error):
            self._client.emit(event)

    def close(self, seconds: float) -> None:
        """Wait for what transports send by themselves."""
        self._client.close(seconds)
        logging.getLogger(TALKATIVE).removeFilter(self._silent)


def _is_local(transport: Any) -> bool:
    path = str(getattr(getattr(transport, "config", None), "log_file_path", ""))
    return transport.kind in LOCAL and "://" not in path.removeprefix("file://")


def _hush() -> Callable[[logging.LogRecord], bool]:
    """One line of ours says what went wrong: without this the libraries print one for each try, and tracebacks.

    Returns the filter that keeps this thread's requests silent, and no others.
    """
    if not os.environ.get("OPENLINEAGE_CLIENT_LOGGING"):
        logging.getLogger("openlineage").setLevel(logging.CRITICAL + 1)
    own = threading.get_ident()

    def silent(record: logging.LogRecord) -> bool:
        return record.thread != own

    logging.getLogger(TALKATIVE).addFilter(silent)
    return silent
