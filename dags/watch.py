"""`retain_watch`: every hour, has each line had a run that finished, and is its main what it was, and more?

The one alert that matters. It reads the lines when it runs: a mistake in `lines.yaml` takes no alarm away, and is one
itself, since a line that cannot be read has no nights.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from cl_steps.errors import IntegrityError, RetainError
from cl_steps.orchestration.faults import faults
from cl_steps.orchestration.heads import check_head, is_to_tell
from cl_steps.orchestration.registry import Entry, Fault, lines_file, read
from cl_steps.orchestration.settling import settled
from cl_steps.orchestration.telling import hours_overdue, tell
from cl_steps.repository.mainline import reading

LOG = logging.getLogger("retain.watch")
BEGINNING = datetime(2024, 1, 1, tzinfo=UTC)
AGAIN_HOURS = 24


def watch(**context: Any) -> None:
    """Look at every line, tell whom it concerns, and end red where one has had no finished run for too long.

    Raises:
        AirflowFailException: lines are overdue or not what they were, or `lines.yaml` has entries that are no lines.
        AirflowException: a line's main cannot be read now.
    """
    late, unread, changed = {}, [], []
    with settled():
        lines = read(lines_file())
    wrong = faults(lines)
    wrong += _not_built(entry for entry in lines.entries if entry.name not in {fault.line for fault in wrong})
    for entry in lines.entries:
        try:
            hours = _look(entry, context)
        except IntegrityError as error:
            _tell_of(entry, error, context)
            changed.append(f"{entry.name}: {error}")
            continue
        except RetainError as error:
            unread.append(f"{entry.name}: {error}")
            continue
        if hours is not None:
            late[entry.name] = f"{entry.name} for {hours:.0f} hours"
    if late or wrong or changed:
        said = [f"no run finished: {', '.join(late.values())}; look at their DAGs' last runs"] if late else []
        raise AirflowFailException("; ".join([*changed, *said, *map(str, wrong)]))
    if unread:
        raise AirflowException(f"{len(unread)} lines cannot be read: {'; '.join(unread)}")


def _not_built(entries: Iterable[Entry]) -> list[Fault]:
    """Of lines that can be read, those whose DAG cannot be made all the same."""
    from cl_steps.orchestration.line_dag import build

    found = []
    for entry in list(entries):
        try:
            build(entry)
        except Exception as error:
            found.append(Fault(entry.name, f"its DAG cannot be built ({type(error).__name__}: {error})"))
    return found


def _look(entry: Entry, context: dict[str, Any]) -> float | None:
    """How long a line is overdue; its people are told when it begins, and then once a day.

    Raises:
        IntegrityError: main is not what it was, and more.
    """
    with reading(entry.line().git) as main:
        check_head(main, entry.name)
        hours = hours_overdue(main, entry)
    if hours is None or entry.overdue_hours is None:
        return None
    LOG.error("line %s has had no finished run for %.0f hours", entry.name, hours)
    if (hours - entry.overdue_hours) % AGAIN_HOURS < 1:
        tell(entry, "overdue", {"hours": round(hours, 1)}, context)
    return hours


def _tell_of(entry: Entry, error: IntegrityError, context: dict[str, Any]) -> None:
    LOG.error("line %s is not as it should be: %s", entry.name, error)
    if is_to_tell(entry.name):
        tell(entry, "integrity", {"what": "watch", "why": str(error)}, context)


with DAG(
    "retain_watch",
    description="Has every line had a run that finished, and is its main what it was, and more?",
    schedule="25 * * * *",
    start_date=BEGINNING,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    tags=["retain"],
    doc_md=__doc__,
    default_args={"retries": 1, "retry_delay": timedelta(minutes=5), "execution_timeout": timedelta(minutes=50)},
) as retain_watch:
    PythonOperator(task_id="watch", python_callable=watch, doc_md="reads every line's main")
