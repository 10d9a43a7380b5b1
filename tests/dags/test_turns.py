"""Whose turn it is: one run of a line at work at a time, and no question and no unpausing in the way of another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.models.dag import DagModel
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSkipException
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables import trigger

from cl_steps.orchestration import light, turns
from cl_steps.orchestration.line_dag import build
from cl_steps.orchestration.pods.profiles import Profile
from cl_steps.orchestration.registry import Entry
from cl_steps.orchestration.turns import MOST_RUNS, Open, longest_run

ENTRY = Entry(name="a", workspace="/nowhere", schedule="0 2 * * *")
BEGINS = {"open": "running", "close": None}
WAITS = {"open": "up_for_reschedule", "close": None}
LEARNS = {"open": "success", "close": None}
CLOSES = {"open": "success", "close": "deferred"}
IS_ASKED = {"open": "success", "close": "success", "ask": "awaiting_input"}


class Runs:
    """As Airflow's task API: counts over the DAG runs of a line, each a state and the states of its tasks."""

    def __init__(self, *others: dict[str, str | None], mine: dict[str, str | None] | None = None) -> None:
        mine = mine or BEGINS
        self.all = [("running", mine), *((str(run.get("run", "running")), run) for run in others)]

    def get_ti_count(self, dag_id: str, task_ids: list[str], states: list[str]) -> int:
        [task] = task_ids
        return sum((run.get(task) or "null") in states for _, run in self.all if task in run)

    def get_dr_count(self, dag_id: str, states: list[str]) -> int:
        return sum(state in states for state, _ in self.all)

    def get_first_reschedule_date(self, context: Any) -> None:
        return None


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs whose branches were made."""
    made: list[str] = []
    monkeypatch.setattr(light, "open_it", lambda entry, run, dag_run, params: made.append(run))
    return made


def begin(runs: Runs, kind: str = "manual", clear_number: int = 0) -> None:
    run = SimpleNamespace(dag_id="retain_a", run_type=SimpleNamespace(value=kind), clear_number=clear_number)
    context: Any = {"ti": runs, "dag_run": run, "params": {}}
    Open(task_id="open", entry=ENTRY, run="2026-01-01-abc").execute(context)


@pytest.mark.parametrize(
    "others",
    [[], [IS_ASKED], [IS_ASKED, IS_ASKED], [{"run": "success", "open": "success", "close": "success"}],
     [{"run": "failed", "open": "success", "close": None}]],
    ids=["alone", "a question waits", "two questions wait", "one is over", "one was given up"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["manual", "scheduled", "asset_triggered"])
def test_it_begins_where_no_other_run_is_at_work(opened: list[str], kind: str, others: list[Any]) -> None:
    begin(Runs(*others), kind)
    assert opened == ["2026-01-01-abc"]


@pytest.mark.parametrize("others", [[LEARNS], [CLOSES], [LEARNS, IS_ASKED], [{**IS_ASKED, "close": "up_for_retry"}]])
@pytest.mark.parametrize("kind", ["manual", "scheduled", "asset_triggered"])
def test_it_waits_for_a_run_at_work_and_takes_no_worker(opened: list[str], kind: str, others: list[Any]) -> None:
    with pytest.raises(AirflowRescheduleException):
        begin(Runs(*others), kind)
    assert opened == []


@pytest.mark.parametrize(
    "other", [WAITS, {"run": "queued", "open": None, "close": None}, {"open": "queued", "close": None}]
)
@pytest.mark.parametrize("kind", ["scheduled", "asset_triggered"])
@pytest.mark.parametrize("more", [[], [LEARNS]], ids=["nothing at work", "one at work"])
def test_a_night_leaves_all_to_another_run_that_is_about_to_begin(
    opened: list[str], kind: str, other: Any, more: list[Any]
) -> None:
    with pytest.raises(AirflowSkipException, match="about to begin"):
        begin(Runs(other, *more), kind)
    assert opened == []


def test_who_triggers_by_hand_gets_a_run_and_so_does_who_clears_one(opened: list[str]) -> None:
    begin(Runs(WAITS))
    begin(Runs(WAITS), "scheduled", clear_number=1)
    assert len(opened) == 2


def test_of_a_hand_trigger_and_a_night_at_once_one_runs_whoever_is_looked_at_first(opened: list[str]) -> None:
    with pytest.raises(AirflowSkipException):
        begin(Runs(BEGINS), "scheduled")
    begin(Runs({"open": "skipped", "close": "skipped"}))
    assert len(opened) == 1


def test_the_dag_lets_runs_wait_one_open_looks_at_a_time_and_no_run_stays_for_ever() -> None:
    dag = build(ENTRY)
    assert (dag.max_active_runs, dag.dagrun_timeout) == (MOST_RUNS, timedelta(days=7))
    opening = dag.get_task("open")
    assert isinstance(opening, Open)
    assert (opening.max_active_tis_per_dag, opening.mode, opening.is_setup) == (1, "reschedule", True)
    long = Profile(image="i", deadline_hours=720)
    assert longest_run(ENTRY.model_copy(update={"profile": long})) == timedelta(days=90)
    assert longest_run(ENTRY.model_copy(update={"step_hours": 100.0})) == timedelta(hours=300)
    assert turns.LOOK_SECONDS < 60


def next_night(entry: Entry, now: datetime, monkeypatch: pytest.MonkeyPatch, last: datetime | None = None) -> datetime:
    """When Airflow would begin the next run of a DAG that somebody unpauses now, and whose last night that was."""
    dag = DagSerialization.from_dict(DagSerialization.to_dict(build(entry)))
    monkeypatch.setattr(trigger, "utcnow", lambda: now)
    model = DagModel(dag_id=dag.dag_id, bundle_name="b")
    reference: Any = last and SimpleNamespace(
        logical_date=last, run_after=last, data_interval=(last, last), data_interval_start=last,
        data_interval_end=last, partition_key=None, partition_date=None, run_type="scheduled", run_id="x",
    )  # fmt: skip
    model.calculate_dagrun_date_fields(dag, reference_run=reference)
    assert model.next_dagrun_create_after
    return model.next_dagrun_create_after


@pytest.mark.parametrize("hour", [1.9, 2.01, 2.5, 4, 15, 23.9])
def test_unpausing_begins_no_night_that_is_past(monkeypatch: pytest.MonkeyPatch, hour: float) -> None:
    now = datetime(2026, 5, 4, tzinfo=UTC) + timedelta(hours=hour)
    assert timedelta(0) < next_night(ENTRY, now, monkeypatch) - now <= timedelta(days=1)


@pytest.mark.parametrize("days", [1, 3, 30])
def test_unpausing_a_line_that_had_nights_makes_up_for_the_last_one_alone(
    monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """Airflow's catchup=False: of all nights that a pause left out it begins the latest, and `open` decides."""
    now = datetime(2026, 5, 4, 15, tzinfo=UTC)
    last = datetime(2026, 5, 4, 2, tzinfo=UTC) - timedelta(days=days)
    assert next_night(ENTRY, now, monkeypatch, last) == datetime(2026, 5, 4, 2, tzinfo=UTC)
    assert next_night(ENTRY, now, monkeypatch, datetime(2026, 5, 4, 2, tzinfo=UTC)) == datetime(
        2026, 5, 5, 2, tzinfo=UTC
    )


def test_a_line_whose_first_day_is_to_come_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    first = (now + timedelta(days=40)).date()
    found = next_night(ENTRY.model_copy(update={"start": first}), now, monkeypatch)
    assert found == datetime(first.year, first.month, first.day, 2, tzinfo=UTC)
