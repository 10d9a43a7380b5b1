"""Airflow's plugin: a tab in each DAG's page that shows the line's versions, grids and lineage where ops already are.

Every process of Airflow loads this file, a task's too: what the tab serves is imported by the first request for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.plugins_manager import AirflowPlugin

Scope = MutableMapping[str, Any]
Call = Callable[..., Awaitable[Any]]


class Served:
    """The web application of `cl_steps/orchestration/tab/pages.py`, made when it is first asked."""

    def __init__(self) -> None:
        self._app: Call | None = None

    async def __call__(self, scope: Scope, receive: Call, send: Call) -> None:
        """Answer one request, as ASGI has it."""
        if self._app is None:
            from cl_steps.orchestration.tab.pages import make_app

            self._app = make_app()
        await self._app(scope, receive, send)


class RetainPlugin(AirflowPlugin):  # type: ignore[misc]
    """The tab. Its address is relative, so that it holds where Airflow is served below a path too."""

    name = "retain"
    fastapi_apps = [{"app": Served(), "url_prefix": "/retain", "name": "retain"}]  # noqa: RUF012 (Airflow's own form)
    external_views = [  # noqa: RUF012
        {"name": "Retain", "href": "retain/lines/{DAG_ID}/", "destination": "dag", "url_route": "retain"}
    ]
