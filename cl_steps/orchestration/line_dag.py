"""The Airflow DAG of a line of `lines.yaml`.

    open -> ingest -> after_ingest -> drift -> after_drift -> update -> evaluate -> gate -> after_gate -> promote
                           |                        |                                           |            |
                           +------------------------+-------------> close <---------------------+------------+
                                                                      |
                               page, report -> after_report -> [held: ask -> answer ->] [new version: publish]

`open` and `close` are set-up and teardown: close runs whatever became of the steps, and a step that failed makes the
DAG run red all the same. Steps and edges come from `cl_steps/pipeline.py`; how a step runs comes from a runner. A
person is asked when all is on record: whatever becomes of the question, nothing waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from airflow.providers.standard.operators.python import BranchPythonOperator, PythonOperator
from airflow.sdk import DAG, AssetOrTimeSchedule, BaseOperator, CronTriggerTimetable, get_parsing_context
from airflow.sdk.definitions.param import ParamsDict

from cl_steps.errors import UsageError
from cl_steps.orchestration import light
from cl_steps.orchestration.asking import FORM, Ask, answer_arguments
from cl_steps.orchestration.last_good import keep, line_as_it_was
from cl_steps.orchestration.page_places import page_place
from cl_steps.orchestration.registry import Entry, Fault, Reading, lines_file, read
from cl_steps.orchestration.runners import Runner, runner_of
from cl_steps.orchestration.telling import notifiers
from cl_steps.orchestration.turns import MOST_RUNS, Open, longest_run
from cl_steps.pipeline import CLOSE, PROMOTE, STAGES, Step

LOG = logging.getLogger("retain.lines")
LONGEST_WAIT = timedelta(minutes=15)
ASKED_AGAIN = 3
"""So often, whatever the line says of retries: Airflow may lose an answer (apache/airflow#71580)."""
RUN = "{{ retain_run(dag_run) }}"
"""The run's id, in every task's template: nothing is handed from task to task."""


def build_all() -> dict[str, DAG]:
    """Every line's DAG, by its id; in a task's process, which reads this file too, that of its line alone.

    A line that cannot be read, or whose DAG cannot be built, has none and stops no other: see `dags/broken_lines.py`.

    Raises:
        UsageError: `lines.yaml` is none at all, which Airflow shows.
    """
    wanted = get_parsing_context().dag_id
    if wanted:
        dag = _of_task(wanted.removeprefix("retain_"))
        return {wanted: dag} if dag else {}
    reading = read(lines_file())
    if not reading.faults:
        keep(lines_file())
    built = {entry.dag_id: _built(entry) for entry in reading.entries}
    return {name: dag for name, dag in built.items() if dag}


def _of_task(line: str) -> DAG | None:
    """The DAG of a task that is under way; by the last good reading where its line cannot be read any more."""
    try:
        reading = read(lines_file())
    except UsageError as error:
        reading = Reading(faults=(Fault("", str(error)),))
    if not reading.faults:
        keep(lines_file())
    entry = next((entry for entry in reading.entries if entry.name == line), None)
    dag = _built(entry) if entry else None
    why = [str(fault) for fault in reading.faults if fault.line in ("", line)]
    if dag is None and (entry or why) and (before := line_as_it_was(line)):
        LOG.warning("this task goes on with the line as it was last read well: %s", "; ".join(why))
        return _built(before)
    return dag


def _built(entry: Entry) -> DAG | None:
    try:
        return build(entry)
    except Exception:
        LOG.exception("line %s has no DAG", entry.name)
        return None


def build(entry: Entry) -> DAG:
    """The DAG of one line."""
    runner = runner_of(entry)
    with _dag(entry) as dag:
        opened = Open(
            task_id="open", entry=entry, run=RUN, doc_md="wait for the run's turn; make its branch, or find it"
        )
        close = runner.task(CLOSE, RUN, doc_md=CLOSE.summary)
        previous = opened
        for step in STAGES:
            previous = _stage(entry, runner, step, previous, close)
        previous >> runner.task(PROMOTE, RUN, doc_md=PROMOTE.summary) >> close
        close.as_teardown(setups=opened)
        report = _light(entry, "report", light.report, "how the run ended, which is the DAG run's result")
        dag.add_result(report.output)
        close >> report
        _afterwards(entry, runner, report)
        _page(entry, runner, opened, close)
    # Given last and unchecked: each operator would copy the form and check it anew, half of what reading a line takes.
    # It is the same for all lines, and a test resolves it.
    object.__setattr__(dag, "params", ParamsDict(light.form()))
    return dag


def _stage(entry: Entry, runner: Runner, step: Step, previous: BaseOperator, close: BaseOperator) -> BaseOperator:
    """A stage and, where the pipeline may go more than one way after it, the decision; returns the last of them."""
    node = runner.task(step, RUN, doc_md=step.summary)
    previous >> node
    ways = light.successors(step)
    if len(ways) == 1:
        return node
    decision = _decision(step.name, partial(light.decide, entry, step), " or ".join(ways))
    node >> decision >> close
    return decision


def _afterwards(entry: Entry, runner: Runner, report: BaseOperator) -> None:
    """What a run's outcome asks for: a person's answer, and that a new version is made known."""
    decision = _decision("report", partial(light.decide_after_report, entry), "ask a person, publish, or nothing")
    ask = Ask(
        task_id="ask", entry=entry, run=RUN, params=FORM, retries=max(entry.retries, ASKED_AGAIN),
        doc_md="waits for a person's yes or no",
    )  # fmt: skip
    answer = runner.command(
        "answer", answer_arguments(entry, RUN), RUN, trusted=True, doc_md="the answer on main, and what follows from it"
    )
    publish = _light(
        entry, "publish", light.publish, "the new version as an asset event",
        outlets=[light.version_asset(entry.name)], trigger_rule="none_failed_min_one_success",
    )  # fmt: skip
    report >> decision >> [ask, publish]
    ask >> answer >> publish


def _page(entry: Entry, runner: Runner, opened: BaseOperator, close: BaseOperator) -> None:
    """The line's page, made anew after each run. It is derived: without it the run is none the worse, as a teardown."""
    place = page_place(entry)
    if entry.page and place:
        arguments = ("report", entry.workspace, "--to", place)
        page = runner.command("page", arguments, RUN, doc_md="the line's page, which the tab Retain shows")
        close >> page
        page.as_teardown(setups=opened)


def _dag(entry: Entry) -> DAG:
    return DAG(
        entry.dag_id,
        description=f"Keeps the line {entry.name} up to date: {entry.workspace}",
        schedule=_schedule(entry),
        start_date=_start(entry),
        catchup=False,
        max_active_runs=MOST_RUNS,
        dagrun_timeout=longest_run(entry),
        # Where building it fails half-way, Airflow must not find the half.
        auto_register=False,
        tags=["retain"],
        doc_md=_help(),
        user_defined_macros={"retain_run": partial(light.identity, timezone=entry.timezone)},
        on_failure_callback=list(notifiers(entry, "failed")),
        default_args={
            "retries": entry.retries,
            # Longer each time: what is away for a quarter of an hour does not end a night.
            "retry_delay": timedelta(seconds=entry.retry_seconds),
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": LONGEST_WAIT,
            "execution_timeout": timedelta(hours=entry.step_hours),
        },
    )


def _schedule(entry: Entry) -> Any:
    """The line's nights, and whenever somebody says that its landing was filled."""
    landing = [light.landing_asset(entry.name)]
    if entry.cron is None:
        return landing
    nights = CronTriggerTimetable(entry.cron, timezone=entry.timezone, run_immediately=timedelta(0))
    return AssetOrTimeSchedule(timetable=nights, assets=landing)


def _start(entry: Entry) -> datetime | None:
    """The day of the first night, while it is to come.

    A day that is past would let Airflow begin, when somebody unpauses the DAG, the night that was due last.
    """
    start = datetime.combine(entry.start, datetime.min.time(), ZoneInfo(entry.timezone))
    return start if start > datetime.now(UTC) else None


@cache
def _help() -> str:
    """What each DAG's page tells ops."""
    return (Path(__file__).parent / "line.md").read_text(encoding="utf-8")


class Decision(BranchPythonOperator):  # type: ignore[misc]
    """A branch that skips at once all it does not lead to; Airflow's own leaves that to the scheduler, task by task."""

    def skip_all_except(self, ti: Any, branch_task_ids: Iterable[str]) -> None:
        """Skip what follows neither directly nor later."""
        chosen = [self.dag.get_task(name) for name in branch_task_ids]
        kept = {task.task_id for start in chosen for task in (start, *start.get_flat_relatives(upstream=False))}
        self.skip(ti, [task for task in self.get_flat_relatives(upstream=False) if task.task_id not in kept])


def _decision(after: str, function: Callable[..., Any], ways: str) -> BaseOperator:
    return Decision(
        task_id=f"after_{after}", python_callable=function, op_kwargs={"run": RUN}, doc_md=f"after {after}: {ways}"
    )


def _light(entry: Entry, task_id: str, function: Callable[..., Any], summary: str, **options: Any) -> BaseOperator:
    return PythonOperator(
        task_id=task_id,
        python_callable=partial(function, entry),
        op_kwargs={"run": RUN},
        doc_md=summary,
        **options,
    )
