"""PostgreSQL as Airflow's database: a private server, the tables, our DAGs in them, and one night's run.

Airflow reads its settings once a process, so the night is played in a process of its own (this file, run as a program).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.dags.postgres import postgres, why_not

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture
def database() -> Iterator[str]:
    """The URL of a fresh database."""
    with postgres() as url:
        yield url


def test_a_night_on_postgres(database: str, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "RETAIN"))}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, __file__, str(tmp_path), database]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["database"] == "postgresql"
    together = ("watch", "audit", "prune", "rollback", "withdraw")
    assert set(found["serialized"]) == {"retain_tiny", "retain_other", *(f"retain_{name}" for name in together)}
    assert found["pools"] == ["default_pool", "gpu"]
    assert (found["well"], found["run"]) == (True, "success")
    names = ("ingest", "drift", "update", "gate", "promote", "close", "report")
    assert [found["tasks"][name] for name in names] == ["success"] * len(names)
    assert not (tmp_path / "home" / "airflow.db").exists()


def play_night(folder: Path, database: str) -> dict[str, Any]:
    """Migrate, serialize, play a night of stubs; returns what the database has of it."""
    from cl_steps.orchestration import serve
    from cl_steps.orchestration.play import Player
    from cl_steps.orchestration.registry import read_lines
    from tests.dags.conftest import make_line
    from tests.dags.stub import StubChild

    workspace, lines = folder / "tiny", folder / "lines.yaml"
    (workspace / "landing").mkdir(parents=True)
    make_line(workspace)
    scenario = {"ingest": "ok", "drift": "drifted", "gate": "promote"}
    (workspace / "scenario.json").write_text(json.dumps(scenario), encoding="utf-8")
    entry = {"workspace": str(workspace), "retry_seconds": 0, "page": False, "profile": "here"}
    document = {
        "profiles": {"here": {"runner": "local", "pool": "gpu"}},
        "lines": [{"name": name, **entry} for name in ("tiny", "other")],
    }
    lines.write_text(yaml.safe_dump(document), encoding="utf-8")
    serve.prepare(folder / "home", lines, 8080, database)
    serve.make_database(lines)
    from airflow.cli.cli_parser import get_parser

    reserialize = get_parser().parse_args(["dags", "reserialize"])
    reserialize.func(reserialize)
    from cl_steps.orchestration import runners

    runners.Child = StubChild  # type: ignore[assignment, misc]
    well = Player(read_lines(lines)[0]).play("scheduled", datetime(2026, 1, 1, tzinfo=UTC), {})
    return {"well": well, **what_is_there()}


def what_is_there() -> dict[str, Any]:
    """What Airflow's database holds."""
    from airflow.models.dagrun import DagRun
    from airflow.models.pool import Pool
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        [run] = session.scalars(select(DagRun))
        return {
            "database": session.get_bind().dialect.name,
            "serialized": sorted(session.scalars(select(SerializedDagModel.dag_id).distinct())),
            "pools": sorted(session.scalars(select(Pool.pool))),
            "run": str(run.state),
            "tasks": {task.task_id: str(task.state) for task in run.get_task_instances(session=session)},
        }


if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / "found.json").write_text(json.dumps(play_night(place, sys.argv[2])), encoding="utf-8")
