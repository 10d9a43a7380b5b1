"""What the tab serves: a line's page and its Evidently reports, to whoever may read the line's DAG in Airflow.

    GET /retain/lines/DAG_ID/                       the page that `retain report` wrote
    GET /retain/lines/DAG_ID/evidently-RUN.html     a report of Evidently, in a frame under a link back to the page
    GET /retain/lines/DAG_ID/frame/evidently-RUN.html    what is in that frame

Captions, reasons and file names in these pages are strangers' texts, and Airflow's own frame around the tab lets its
content act as the person in front of it. So each answer takes that away by its policy. The page may not run scripts; it
keeps its origin, as without one a browser would not send the session's cookie when a link in it is followed. The
reports of Evidently need scripts: they get an origin of their own, to which no cookie and no page of Airflow belongs.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path

from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException

from cl_steps.errors import RetainError, UsageError
from cl_steps.orchestration.page_places import read_page, where_written
from cl_steps.orchestration.registry import Entry, Reading, lines_file, read
from cl_steps.orchestration.tab.page_sheet import framed, sentences
from cl_steps.report.pages import PAGE, known

LOG = logging.getLogger("retain.pages")
LOCKED = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; style-src 'unsafe-inline'"
PAGE_POLICY = f"sandbox allow-same-origin; {LOCKED}; img-src data:"
FRAME_POLICY = f"{LOCKED}; frame-src 'self'"
EVIDENTLY_POLICY = (
    f"sandbox allow-scripts; {LOCKED}; script-src 'unsafe-inline' 'unsafe-eval'; img-src data: blob:; font-src data:"
)
HEADERS = {
    "Cache-Control": "private, no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def make_app() -> FastAPI:
    """The application, to be mounted at `/retain`; every answer with a line's content asks Airflow's auth manager."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    may_read = [Depends(requires_access_dag("GET"))]
    app.add_api_route("/lines/{dag_id}/", line_page, dependencies=may_read)
    app.add_api_route("/lines/{dag_id}/{name}", framed_report, dependencies=may_read)
    app.add_api_route("/lines/{dag_id}/frame/{name}", report_in_frame, dependencies=may_read)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RetainError, away)
    return app


def line_page(dag_id: str) -> Response:
    """The line's page, or a word on how it comes about."""
    entry = line_of(dag_id)
    content = read_page(entry, PAGE)
    if content is None:
        return message(404, "No page yet", where_written(entry))
    return answer(content, PAGE_POLICY)


def framed_report(dag_id: str, name: str) -> Response:
    """A report of Evidently under a link back: it has an origin of its own, from which no link could lead back."""
    line_of(dag_id)
    if name == PAGE or not known(name):
        raise HTTPException(404, "a line has its page and the reports that it links to, and nothing else")
    return answer(framed("Evidently report", f"frame/{name}"), FRAME_POLICY)


def report_in_frame(dag_id: str, name: str) -> Response:
    """The report itself."""
    entry = line_of(dag_id)
    content = read_page(entry, name) if name != PAGE and known(name) else None
    if content is None:
        raise HTTPException(404, "this report is not kept here: a line's page links to those of its latest runs")
    return answer(content, EVIDENTLY_POLICY)


def line_of(dag_id: str) -> Entry:
    """The line of a DAG; raises HTTPException (404) where it is none, UsageError where it cannot be read."""
    path = lines_file()
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    reading = _reading(path, stamp)
    found = next((entry for entry in reading.entries if entry.dag_id == dag_id), None)
    if found:
        return found
    fault = reading.fault_of(dag_id.removeprefix("retain_"))
    if fault:
        raise UsageError(str(fault))
    raise HTTPException(404, f"`{dag_id}` is none of the lines in the `{path.name}` that this web server reads")


@lru_cache(maxsize=1)
def _reading(path: Path, _stamp: int) -> Reading:
    return read(path)


def answer(content: bytes, policy: str, status: int = 200) -> Response:
    """An HTML page that may do what `policy` says and nothing else."""
    return HTMLResponse(content, status, {**HEADERS, "Content-Security-Policy": policy})


def message(status: int, title: str, *paragraphs: str) -> Response:
    """A few sentences of ours; raw text."""
    return answer(sentences(title, *paragraphs), PAGE_POLICY, status)


def refused(_request: Request, error: Exception) -> Response:
    """Nobody is signed in, the person may not read the DAG, or there is no such page."""
    assert isinstance(error, HTTPException)
    titles = {401: "Sign in to Airflow first", 403: "You may not read this DAG"}
    return message(error.status_code, titles.get(error.status_code, "Nothing to show"), str(error.detail))


def away(_request: Request, error: Exception) -> Response:
    """Where a line's pages are kept, or `lines.yaml`, cannot be read."""
    LOG.warning("a line's page cannot be shown: %s", error)
    return message(503, "The page cannot be shown now", str(error))
