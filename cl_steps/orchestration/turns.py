"""Runs of a line take turns: one is at work at a time, from `open` to `close`, whoever began it.

Airflow's own limit would count a run whose question waits for a person as well, and hold the next ones back behind it
for hours. So many runs may be there at once, and `open` waits: Airflow looks again now and then, no worker is taken.
Two runs at once would do no harm, promotion is a compare-and-swap; but both would learn the same batch.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import BaseSensorOperator, Context
from airflow.sdk.exceptions import AirflowSkipException

from cl_steps.orchestration import light
from cl_steps.orchestration.registry import Entry

MOST_RUNS = 16
"""So many of a line at once: one at work, and those that wait for their turn or for an answer."""
LOOK_SECONDS = 30.0
LEAST = timedelta(days=7)
UNFINISHED = [
    "null", "scheduled", "queued", "running", "restarting", "up_for_retry", "up_for_reschedule", "deferred",
    "awaiting_input",
]  # fmt: skip


class Open(BaseSensorOperator):  # type: ignore[misc]
    """Waits for the run's turn, then makes its branch, or finds it.

    A night that finds another run about to begin leaves everything to that one, and is skipped. Who triggers a run by
    hand gets one.
    """

    template_fields = ("run",)

    def __init__(self, *, entry: Entry, run: str, **options: Any) -> None:
        # One `open` of a line at once: what it sees holds until it has ended.
        super().__init__(
            mode="reschedule",
            poke_interval=LOOK_SECONDS,
            timeout=longest_run(entry),
            max_active_tis_per_dag=1,
            do_xcom_push=False,
            **options,
        )
        self.entry, self.run = entry, run

    def poke(self, context: Context) -> bool:
        """Whether the run has begun.

        Raises:
            AirflowSkipException: another run takes what waits, and this one would find nothing.
        """
        dag_run = context["dag_run"]
        at_work, begin = _others(context["ti"], dag_run.dag_id)
        if begin and dag_run.run_type.value != "manual" and not dag_run.clear_number:
            raise AirflowSkipException("another run of the line is about to begin, and takes in what waits")
        if at_work:
            self.log.info("another run of the line is at work: this one begins when that is closed")
            return False
        light.open_it(self.entry, self.run, dag_run, context["params"])
        return True


def longest_run(entry: Entry) -> timedelta:
    """How long a run may take, whatever it waits for, before Airflow ends it: a week, or thrice a step's deadline."""
    step = entry.profile.deadline_hours if entry.profile.runner == "pod" else entry.step_hours
    return max(LEAST, 3 * timedelta(hours=step))


def _others(ti: Any, dag: str) -> tuple[int, int]:
    """How many other runs of a DAG are between `open` and the end of `close`, and how many are before it.

    What a run that is over left unfinished, as Airflow may, counts for nothing where no other run is there.
    """
    opening = ti.get_ti_count(dag_id=dag, task_ids=["open"], states=UNFINISHED)
    closing = ti.get_ti_count(dag_id=dag, task_ids=["close"], states=UNFINISHED)
    running = ti.get_dr_count(dag_id=dag, states=["running"])
    there = ti.get_dr_count(dag_id=dag, states=["running", "queued"])
    return min(closing - opening, running - 1), min(opening - 1, there - 1)
