"""One Airflow DAG a line of `lines.yaml`.

    open -> ingest -> after_ingest -> drift -> after_drift -> update -> evaluate -> gate -> after_gate -> promote
                           |                        |                                           |            |
                           +------------------------+-------------> close <---------------------+------------+
                                                                      |
                                                                   report

`open` and `close` are set-up and teardown: close runs whatever became of the steps, and a step that failed makes the
DAG run red all the same. Steps and edges come from `cl_steps/pipeline.py`; how a step runs comes from a runner.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from airflow.providers.standard.operators.python import BranchPythonOperator, PythonOperator
from airflow.sdk import DAG, BaseOperator

from cl_steps.pipeline import CLOSE, PROMOTE, STAGES, Step
from dags import light
from dags.registry import Entry, lines_file, read_lines
from dags.runners import LocalProcess, Runner

RUN = "{{ retain_run(dag_run) }}"
"""The run's id, in every task's template: nothing is handed from task to task."""


def build_all() -> dict[str, DAG]:
    """Every line's DAG, by its id; raises UsageError where `lines.yaml` is not right, which Airflow shows."""
    entries = read_lines(lines_file())
    return {
        entry.dag_id: build(entry, LocalProcess(entry.workspace, entry.settings, entry.environment))
        for entry in entries
    }


def build(entry: Entry, runner: Runner) -> DAG:
    """The DAG of one line; its steps run where `runner` says."""
    with _dag(entry) as dag:
        opened, close = _open(entry), runner.task(CLOSE.name, RUN)
        previous = opened
        for step in STAGES:
            previous = _stage(entry, runner, step, previous, close)
        previous >> runner.task(PROMOTE.name, RUN) >> close
        close.as_teardown(setups=opened)
        report = _report(entry)
        dag.add_result(report.output)
        close >> report
    return dag


def _stage(entry: Entry, runner: Runner, step: Step, previous: BaseOperator, close: BaseOperator) -> BaseOperator:
    """A stage and, where the pipeline may go more than one way after it, the decision; returns the last of them."""
    node = runner.task(step.name, RUN, doc_md=step.summary)
    previous >> node
    if len(light.successors(step)) == 1:
        return node
    decision = _decision(entry, step)
    node >> decision >> close
    return decision


def _dag(entry: Entry) -> DAG:
    return DAG(
        entry.dag_id,
        description=f"Keeps the line {entry.name} up to date: {entry.workspace}",
        schedule=entry.schedule,
        start_date=datetime.combine(entry.start, datetime.min.time(), ZoneInfo(entry.timezone)),
        catchup=False,
        max_active_runs=1,
        params=light.form(),
        tags=["retain"],
        doc_md=__doc__,
        user_defined_macros={"retain_run": partial(light.identity, timezone=entry.timezone)},
        default_args={
            "retries": entry.retries,
            "retry_delay": timedelta(seconds=entry.retry_seconds),
            "execution_timeout": timedelta(hours=entry.step_hours),
        },
    )


def _open(entry: Entry) -> BaseOperator:
    return PythonOperator(
        task_id="open",
        python_callable=partial(light.open_it, entry),
        op_kwargs={"run": RUN},
        doc_md="make the run's branch, or find it",
    )


class Decision(BranchPythonOperator):  # type: ignore[misc]
    """A branch that skips at once all it does not lead to; Airflow's own leaves that to the scheduler, task by task."""

    def skip_all_except(self, ti: Any, branch_task_ids: Iterable[str]) -> None:
        """Skip what follows neither directly nor later."""
        chosen = [self.dag.get_task(name) for name in branch_task_ids]
        kept = {task.task_id for start in chosen for task in (start, *start.get_flat_relatives(upstream=False))}
        self.skip(ti, [task for task in self.get_flat_relatives(upstream=False) if task.task_id not in kept])


def _decision(entry: Entry, step: Step) -> BaseOperator:
    return Decision(
        task_id=f"after_{step.name}",
        python_callable=partial(light.decide, entry, step),
        op_kwargs={"run": RUN},
        doc_md=f"after {step.name}: {' or '.join(light.successors(step))}",
    )


def _report(entry: Entry) -> BaseOperator:
    return PythonOperator(
        task_id="report",
        python_callable=partial(light.report, entry),
        op_kwargs={"run": RUN},
        doc_md="how the run ended, which is the DAG run's result; and the line's page",
    )


globals().update(build_all())
