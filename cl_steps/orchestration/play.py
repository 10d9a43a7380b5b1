"""A DAG run here and now, without scheduler and web server: what `retain demo` does with Airflow's own `DAG.test`.

Everything that a run leaves in Airflow's database is as a scheduler would leave it, so that `airflow standalone` on the
same `AIRFLOW_HOME` shows it and can clear it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, Protocol
from unittest.mock import patch

from cl_steps.orchestration.registry import Entry, line_called


class Watcher(Protocol):
    """Is told what goes on."""

    def began(self, task: str) -> None:
        """A task begins, or begins again."""

    def said(self, line: str) -> None:
        """A step printed a line."""

    def ended(self, task: str, state: str) -> None:
        """A task ended: `success`, `skipped`, `failed`, or `again` where it will be tried again."""


@dataclass(frozen=True)
class Player:
    """Plays runs of one line's DAG."""

    entry: Entry

    @classmethod
    def open(cls, home: Path, lines: Path, line: str, watcher: Watcher) -> Player:
        """Make Airflow's database in `home` if it is not there, and read the DAG of `line` from `lines`.

        Airflow reads its settings when it is first imported: nothing of it may be imported before.
        """
        configure(home, lines)
        from airflow.sdk.listener import get_listener_manager
        from airflow.utils.db import initdb

        if not (home / "airflow.db").is_file():
            initdb()
        get_listener_manager().add_listener(_listener(watcher))
        logging.getLogger("retain.step").addHandler(_Handler(watcher.said))
        return cls(line_called(line, lines))

    def identity(self, kind: str, moment: datetime) -> str:
        """The id of the run that `play` makes: the same branch each time."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.types import DagRunType

        from cl_steps.orchestration.light import identity

        name = DagRun.generate_run_id(run_type=DagRunType(kind), logical_date=moment, run_after=moment)
        run = SimpleNamespace(dag_id=self.entry.dag_id, run_id=name, logical_date=moment)
        return identity(run, self.entry.timezone)

    def play(self, kind: str, moment: datetime, form: dict[str, Any]) -> bool:
        """Play a `scheduled` or `manual` run from its first task; what is done already is found done.

        Returns whether it went well.
        """
        from cl_steps.orchestration.line_dag import build_all

        # Built anew each time: a DAG object remembers the form of the run before.
        dag = build_all()[self.entry.dag_id]
        with _created_as(kind):
            # Nobody is there to be asked: what is held is answered with `retain approve` or `retain refuse`.
            run = dag.test(logical_date=moment, run_after=moment, run_conf=form, mark_success_pattern=r"^(ask|answer)$")
        return str(run.state) == "success"


def configure(home: Path, lines: Path) -> None:
    """Airflow's settings, by its environment: everything in `home`, nothing sent anywhere."""
    home.mkdir(parents=True, exist_ok=True)
    settings = {
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__DAGS_FOLDER": dag_files(),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "RETAIN_LINES": lines,
    }
    os.environ.update({name: str(value) for name, value in settings.items()})
    # Airflow and diffusers are large: without bytecode every process would compile them anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def dag_files() -> Path:
    """The folder of DAG files that Airflow reads: shipped in the package, or `dags` at the top of a source tree."""
    here = Path(__file__).resolve()
    shipped = here.with_name("dag_files")
    return shipped if shipped.is_dir() else here.parents[2] / "dags"


@contextmanager
def _created_as(run_type: str) -> Iterator[None]:
    """`DAG.test` makes manual runs by the user `dag_test` alone; here it makes what a scheduler or a person would."""
    import airflow.models.dagrun as models
    from airflow.sdk import DagRunState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType
    from sqlalchemy import or_, select

    kind = DagRunType(run_type)
    by = DagRunTriggeredByType.TIMETABLE if run_type == "scheduled" else DagRunTriggeredByType.CLI

    def create(*, dag: Any, logical_date: Any, run_after: Any, session: Any, **rest: Any) -> Any:
        # The same run, and what was at work when an earlier player was killed: nobody goes on with it.
        left = models.DagRun.state.in_((DagRunState.RUNNING, DagRunState.QUEUED))
        same = (models.DagRun.dag_id == dag.dag_id, or_(models.DagRun.logical_date == logical_date, left))
        for earlier in session.scalars(select(models.DagRun).where(*same)):
            session.delete(earlier)
        session.commit()
        facts = {
            "run_id": models.DagRun.generate_run_id(run_type=kind, logical_date=logical_date, run_after=run_after),
            "run_type": kind,
            "triggered_by": by,
            "triggering_user_name": None,
            "start_date": datetime.now(UTC),
            "state": DagRunState.RUNNING,
        }
        when = {"logical_date": logical_date, "run_after": run_after}
        return dag.create_dagrun(session=session, **{**rest, **when, **facts})

    with patch.object(models, "get_or_create_dagrun", create):
        yield


def _listener(watcher: Watcher) -> object:
    """Airflow's own hooks, passed on: they are called where the tasks run, which is here."""
    from airflow.listeners import hookimpl

    class Listener:
        @hookimpl  # type: ignore[untyped-decorator]
        def on_task_instance_running(self, task_instance: Any) -> None:
            # Airflow's own handler would only end the step, and then try it again.
            signal.signal(signal.SIGTERM, _stop)
            watcher.began(task_instance.task_id)

        @hookimpl  # type: ignore[untyped-decorator]
        def on_task_instance_success(self, task_instance: Any) -> None:
            watcher.ended(task_instance.task_id, "success")

        @hookimpl  # type: ignore[untyped-decorator]
        def on_task_instance_skipped(self, task_instance: Any) -> None:
            watcher.ended(task_instance.task_id, "skipped")

        @hookimpl  # type: ignore[untyped-decorator]
        def on_task_instance_failed(self, task_instance: Any, error: Any) -> None:
            if isinstance(error, KeyboardInterrupt):
                raise error
            final = str(task_instance.state) == "failed"
            watcher.ended(task_instance.task_id, "failed" if final else "again")

    return Listener()


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class _Handler(logging.Handler):
    """Passes on what steps print."""

    def __init__(self, said: Callable[[str], None]) -> None:
        super().__init__()
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said(record.getMessage())
