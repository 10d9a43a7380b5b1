"""Whole DAG runs of a tiny line, in Airflow itself: every way in which they end."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
import yaml

from cl_steps.ledger.events import RunEvent, event_path
from cl_steps.operations.play import run_events
from cl_steps.orchestration import turns
from cl_steps.orchestration.play import Player
from cl_steps.records.builders import now
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Change, reading
from cl_steps.repository.run_branch import read_run
from tests.dags.conftest import ENTRY, LINES, WORKSPACE
from tests.lasting import whole_event

# Airflow's own: it builds on deprecated parts of its libraries and leaves sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("default")
DAYS = count(1)
LEARN = {"ingest": "ok", "drift": "drifted"}
ALL = ("ingest", "drift", "update", "evaluate", "gate", "promote", "close")


def states(player: Player, moment: datetime) -> dict[str, str]:
    """Task to state of the DAG run of a moment."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        run = session.scalars(select(DagRun).where(DagRun.logical_date == moment)).one()
        return {task.task_id: str(task.state) for task in run.get_task_instances(session=session)}


def played(player: Player, line: Line, kind: str = "scheduled", **form: Any) -> tuple[bool, RunEvent, dict[str, str]]:
    moment = datetime(2026, 2, next(DAYS), tzinfo=UTC)
    well = player.play(kind, moment, form)
    return well, run_events(line)[player.identity(kind, moment)], states(player, moment)


def called() -> tuple[str, ...]:
    return tuple(line.split()[0] for line in (WORKSPACE / "calls.txt").read_text().splitlines())


def test_quiet_ends_without_an_update(player: Player, scenario: Any) -> None:
    well, event, found = played(player, scenario(ingest="ok", drift="quiet"))
    assert (well, event.outcome, event.trigger.kind) == (True, "no_update", "schedule")
    assert called() == ("ingest", "drift", "close")
    assert {found[name] for name in ("update", "evaluate", "gate", "after_gate", "promote")} == {"skipped"}
    assert found["report"] == "success"


def test_a_better_candidate_is_promoted(player: Player, scenario: Any) -> None:
    form = {"force": True, "method": "replay", "reason": "to see"}
    well, event, _ = played(player, scenario(**LEARN, gate="promote"), "manual", **form)
    assert (well, event.outcome, called()) == (True, "promoted", ALL)
    assert event.trigger.document() == {
        "kind": "manual",
        "by": "",
        "reason": "to see",
        "force": True,
        "set": {"update.method": "replay"},
    }


def test_a_stale_run_is_closed_as_stale(player: Player, scenario: Any) -> None:
    well, event, found = played(player, scenario(**LEARN, gate="promote", promote={"codes": [4]}))
    assert (well, event.outcome) == (True, "stale")
    assert (found["promote"], found["report"]) == ("skipped", "success")


def test_a_step_that_fails_is_red_and_closed(player: Player, scenario: Any) -> None:
    line = scenario(**LEARN, update={"codes": [2]}, gate="promote")
    moment = datetime(2026, 2, next(DAYS), tzinfo=UTC)
    assert not player.play("scheduled", moment, {})
    run = player.identity("scheduled", moment)
    found = states(player, moment)
    assert (found["update"], found["promote"], found["close"]) == ("failed", "upstream_failed", "success")
    assert run_events(line)[run].outcome == "failed"
    assert called().count("update") == 1
    tip = read_run(line, run).tip
    # Ops mend it and clear the run: the same branch goes on.
    assert player.play("scheduled", moment, {})
    assert run_events(line)[run].outcome == "promoted"
    assert read_run(line, run).tip != tip
    assert {line.split()[1] for line in (WORKSPACE / "calls.txt").read_text().splitlines()} == {run}


def test_what_may_pass_is_tried_again_and_a_worse_candidate_rejected(player: Player, scenario: Any) -> None:
    well, event, found = played(player, scenario(**LEARN, update={"codes": [6, -9]}, gate="reject"))
    assert (well, event.outcome, called().count("update")) == (True, "rejected", 3)
    assert (found["update"], found["promote"]) == ("success", "skipped")


def test_a_wrong_form_fails_at_once_and_leaves_no_run(player: Player, scenario: Any) -> None:
    line = scenario()
    moment = datetime(2026, 2, next(DAYS), tzinfo=UTC)
    assert not player.play("manual", moment, {"force": True})
    assert run_events(line) == {}
    assert states(player, moment)["open"] == "failed"
    assert not (WORKSPACE / "calls.txt").exists()


def test_what_a_killed_player_left_at_work_is_in_nobodys_way(
    player: Player, scenario: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    line = scenario(ingest="ok", drift="quiet")
    left, moment = (datetime(2026, 2, next(DAYS), tzinfo=UTC) for _ in range(2))
    assert player.play("scheduled", left, {})
    with create_session() as session:
        run = session.scalars(select(DagRun).where(DagRun.logical_date == left)).one()
        run.state = "running"
    # Whose turn it is, is not asked here: it would wait for that one for ever.
    monkeypatch.setattr(turns, "_others", lambda ti, dag: (0, 0))
    assert player.play("scheduled", moment, {})
    with create_session() as session:
        assert session.scalars(select(DagRun).where(DagRun.logical_date == left)).all() == []
    assert len(run_events(line)) == 2


def asset_events() -> list[dict[str, Any]]:
    """What the asset events say, oldest first."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        return [event.extra for event in session.scalars(select(AssetEvent).order_by(AssetEvent.id))]


def test_a_new_version_is_made_known_with_its_digests_and_nothing_else_is(player: Player, scenario: Any) -> None:
    before = len(asset_events())
    _, _, found = played(player, scenario(**LEARN, gate="reject"))
    assert (found["ask"], found["answer"], found["publish"]) == ("skipped", "skipped", "skipped")
    assert len(asset_events()) == before
    _, event, found = played(player, scenario(**LEARN, gate="promote"))
    assert (found["ask"], found["publish"]) == ("skipped", "success")
    [said] = asset_events()[before:]
    assert (said["version"], said["parent"], said["run"]) == ("v2", "v1", event.run)
    assert (said["adapter"], said["base"]) == (f"{'a' * 32}.dir", f"{'b' * 32}.dir")


@pytest.mark.parametrize("verdicts", [{"ingest": "ok", "drift": "alarming"}, {**LEARN, "gate": "inconclusive"}])
def test_a_held_run_is_on_record_before_anybody_is_asked(player: Player, scenario: Any, verdicts: Any) -> None:
    well, event, found = played(player, scenario(**verdicts))
    assert (well, event.outcome) == (True, "held")
    # The player marks the question as done: nobody is there. Nothing was answered, so nothing is new.
    assert (found["ask"], found["answer"], found["publish"]) == ("success", "success", "skipped")


def test_a_line_beyond_its_gpu_hours_learns_nothing_and_loses_nothing(player: Player, scenario: Any) -> None:
    spent = {**ENTRY, "gpu_hours": 1e-9}
    LINES.write_text(yaml.safe_dump({"lines": [spent]}), encoding="utf-8")
    try:
        line = scenario(ingest="ok", drift="drifted", gate="promote")
        with reading(line.git) as main:
            used = {"schema": 1, "kind": "run", "run": "r-0", "outcome": "no_update", "at": now(), "gpu_seconds": 60}
            assert main.push(Change({event_path("run", "r-0"): json.dumps(whole_event(used)).encode()}, "a costly run"))
        well, event, found = played(player, line)
    finally:
        LINES.write_text(yaml.safe_dump({"lines": [ENTRY]}), encoding="utf-8")
    assert (well, event.outcome) == (False, "failed")
    assert (found["after_drift"], found["update"], found["close"]) == ("failed", "upstream_failed", "success")


@pytest.mark.parametrize("kind", ["scheduled", "manual"])
def test_a_run_keeps_its_identity(player: Player, kind: str) -> None:
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    assert player.identity(kind, moment) == player.identity(kind, moment)
    assert player.identity(kind, moment).startswith("2026-03-01-")
