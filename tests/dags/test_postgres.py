"""PostgreSQL as Airflow's database: a private server, the tables, our DAGs in them, and one night's run.

Airflow reads its settings once a process, so the night is played in a process of its own (this file, run as a program).
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BINARIES = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path("/usr/local/bin"), Path("/usr/bin")]
SERVER = next((folder for folder in BINARIES if (folder / "initdb").is_file()), None)
DRIVERS = ("psycopg2", "asyncpg")
ROOT_NEEDS = "postgres"
SECONDS = 60.0

pytestmark = [
    pytest.mark.skipif(SERVER is None, reason="no PostgreSQL here: apt-get install postgresql"),
    pytest.mark.skipif(
        not all(map(find_spec, DRIVERS)), reason="no driver for PostgreSQL here: pip install psycopg2-binary asyncpg"
    ),
]


@pytest.fixture
def database() -> Iterator[str]:
    """The URL of a fresh database behind a socket that this user alone can reach."""
    folder = Path(tempfile.mkdtemp(prefix="retain-postgres-"))
    who = _not_root(folder)
    assert SERVER is not None
    make = [SERVER / "initdb", "-D", folder / "data", "-U", "airflow", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(make, check=True, capture_output=True, **who)
    options = {"listen_addresses": "", "unix_socket_directories": folder, "fsync": "off"}
    command = [SERVER / "postgres", "-D", folder / "data", *(f"--{name}={value}" for name, value in options.items())]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, **who) as server:
        try:
            _wait_for(folder / ".s.PGSQL.5432", server, folder / "log")
            yield f"postgresql+psycopg2://airflow@/postgres?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(SECONDS)
            shutil.rmtree(folder)


def _not_root(folder: Path) -> dict[str, Any]:
    """Who the server runs as: it refuses to be root."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam(ROOT_NEEDS)
    except KeyError:
        pytest.skip("PostgreSQL refuses to run as root, and there is no user `postgres` here")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _wait_for(path: Path, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + SECONDS
    while not path.exists():
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_night_on_postgres(database: str, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "RETAIN"))}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, __file__, str(tmp_path), database]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["database"] == "postgresql"
    assert {"retain_tiny", "retain_other"} <= set(found["serialized"])
    assert found["pools"] == ["default_pool", "gpu"]
    assert (found["well"], found["run"]) == (True, "success")
    names = ("ingest", "drift", "update", "gate", "promote", "close", "report")
    assert [found["tasks"][name] for name in names] == ["success"] * len(names)
    assert not (tmp_path / "home" / "airflow.db").exists()


def play_night(folder: Path, database: str) -> dict[str, Any]:
    """Migrate, serialize, play a night of stubs; returns what the database has of it."""
    from dags import serve
    from dags.play import Player
    from dags.registry import read_lines
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
    from dags import runners

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
