"""What is done to every line once a week, each line a task of its own, so that one hides no other.

retain_audit     all digests and signatures, the sealed images, the quarantine: red where something is wrong
retain_prune     a day later: runs that came to nothing are let go, after `keep_days`

A line's task is its own process or pod (`on_line.py`), with its own credentials.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from airflow.sdk import DAG, Context, CronTriggerTimetable

from cl_steps.orchestration.on_line import Call, OnLine
from cl_steps.orchestration.registry import Entry, lines_file, read_lines

BEGINNING = datetime(2024, 1, 1, tzinfo=UTC)
AUDIT, PRUNE = "0 5 * * 6", "0 5 * * 0"


def weekly(cron: str, description: str, command: Callable[[Entry], Call]) -> DAG:
    """A DAG that runs a command on every line; it is called as `command` is."""
    name = command.__name__
    with DAG(
        f"retain_{name}",
        description=description,
        schedule=CronTriggerTimetable(cron, timezone="UTC"),
        start_date=BEGINNING,
        catchup=False,
        max_active_runs=1,
        # Over before the next one is due.
        dagrun_timeout=timedelta(days=6),
        tags=["retain"],
        doc_md=(Path(__file__).parent / f"{name}.md").read_text(encoding="utf-8"),
        default_args={
            "retries": 6,
            "retry_delay": timedelta(minutes=1),
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": timedelta(hours=1),
        },
    ) as dag:
        for entry in read_lines(lines_file()):
            call = command(entry)
            OnLine(
                task_id=entry.name,
                call=partial(_always, call),
                doc_md=f"`retain {name}` of the line {entry.name}",
                pool=entry.profile.pool if call.gpu else "default_pool",
                # A pod has a deadline of its own, which holds whether Airflow is up or not.
                execution_timeout=timedelta(hours=entry.step_hours) if entry.profile.runner == "local" else None,
            )
    return dag


def audit(entry: Entry) -> Call:
    """Verify the line, ask its sealed images (as a GPU step), and count again; it reads, and changes nothing."""
    return Call("audit", entry, ("audit", entry.workspace), gpu=True)


def prune(entry: Entry) -> Call:
    """Let go of the line's old runs that came to nothing."""
    return Call("prune", entry, ("prune", entry.workspace, f"--days={entry.keep_days:g}"), trusted=True)


def _always(call: Call, context: Context) -> Call:  # noqa: ARG001
    return call


retain_audit = weekly(AUDIT, "Is every line what its records say?", audit)
retain_prune = weekly(PRUNE, "Old runs that came to nothing are let go", prune)
