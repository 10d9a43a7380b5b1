"""`make airflow`: what it refuses, who is let in, that all of it listens here alone, and that all of it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cl_steps.errors import UsageError
from cl_steps.orchestration import processes, serve
from cl_steps.orchestration.processes import Processes

ROOT = Path(__file__).parents[2]
SECONDS = 20.0


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / ".retain").mkdir()
    (tmp_path / ".retain" / "lines.yaml").write_text("lines: [{name: a, workspace: /w}]", encoding="utf-8")
    return tmp_path


@pytest.fixture
def environment() -> Iterator[None]:
    """The process's environment and signals, as they were, afterwards."""
    variables, handlers = dict(os.environ), {number: signal.getsignal(number) for number in processes.STOPS}
    yield
    os.environ.clear()
    os.environ.update(variables)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_without_a_line_it_says_how_to_get_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], environment: None
) -> None:
    assert serve.main([str(tmp_path)]) == UsageError.exit_code
    said = capsys.readouterr().err
    assert "make demo" in said
    assert said.count("\n") == 1


def test_a_port_that_is_taken_is_said_before_anything_starts(
    workspace: Path, capsys: pytest.CaptureFixture[str], environment: None
) -> None:
    with socket.create_server((serve.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert serve.main([str(workspace), "--port", str(port)]) == 6
    assert capsys.readouterr().err == (
        f"make airflow: port {port} is taken: `make airflow PORT={port + 1}` takes another\n"
    )
    assert not (workspace / ".retain" / "airflow").exists()


def test_settings_let_nobody_in_without_a_password_and_nothing_out(workspace: Path, environment: None) -> None:
    home = workspace / "home"
    serve.prepare(home, workspace / ".retain" / "lines.yaml", 8123)
    assert os.environ["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "False"
    assert os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] == "admin:admin,ops:op,reader:viewer"
    assert os.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8123/execution/"
    assert os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"sqlite:///{home / 'airflow.db'}"
    assert os.environ["RETAIN_LINES"] == str(workspace / ".retain" / "lines.yaml")
    assert all("--skip-serve-logs" in serve.PARTS[part] for part in ("scheduler", "triggerer"))


def test_another_database_is_taken(workspace: Path, environment: None) -> None:
    serve.prepare(workspace / "home", workspace / "lines.yaml", 8123, "postgresql+psycopg2://a@b/c")
    assert os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == "postgresql+psycopg2://a@b/c"


def test_passwords_are_made_once_and_kept_from_others(workspace: Path, environment: None) -> None:
    home = workspace / "home"
    first = serve.prepare(home, workspace / "lines.yaml", 8123)
    assert serve.prepare(home, workspace / "lines.yaml", 8123) == first
    assert len(set(first.values())) == len(serve.ROLES)
    assert min(map(len, first.values())) >= 16
    file = home / serve.PASSWORDS
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text()) == first
    assert Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]) == file
    said = serve.welcome(8123, first, home)
    assert all(words in said for words in ("http://localhost:8123", first["admin"], "viewer"))


def test_all_parts_share_one_secret_that_outlives_them(workspace: Path, environment: None) -> None:
    home = workspace / "home"
    found = []
    for _ in range(2):
        serve.prepare(home, workspace / "lines.yaml", 8123)
        found.append(os.environ["AIRFLOW__API_AUTH__JWT_SECRET"])
    assert found[0] == found[1]
    assert len(found[0]) >= 32
    assert (home / serve.SIGNS_TOKENS).stat().st_mode & 0o777 == 0o600


def test_a_pool_for_each_that_a_profile_names(tmp_path: Path) -> None:
    lines = tmp_path / "lines.yaml"
    lines.write_text(
        "profiles: {one: {runner: local, pool: gpu}, two: {runner: local}}\n"
        "lines: [{name: a, workspace: /w, profile: one}, {name: b, workspace: /w, profile: two}]",
        encoding="utf-8",
    )
    assert serve.pools(lines) == {"gpu": 1}


def test_what_ends_by_itself_ends_all_and_is_named(tmp_path: Path, environment: None) -> None:
    with Processes(tmp_path) as family:
        family.start("long", [sys.executable, "-c", "import time; time.sleep(600)"])
        family.start("short", [sys.executable, "-c", "print('no such thing'); raise SystemExit(3)"])
        [long] = [child for child in psutil.Process().children() if "sleep(600)" in " ".join(child.cmdline())]
        with pytest.raises(serve.Unavailable, match=r"short ended by itself: no such thing"):
            family.watch()
    assert not lives(long)


def test_nothing_is_left_of_all_that_was_started(
    tmp_path: Path, environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 1.0)
    monkeypatch.setattr(processes, "LAST_SECONDS", 1.0)
    # A part that is deaf, a helper in its group, and a task of its own group whose step is of its own session.
    deaf = "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    step = [sys.executable, "-c", f"{deaf} time.sleep(601)"]
    task = [sys.executable, "-c", f"{deaf} subprocess.Popen({step!r}, start_new_session=True); time.sleep(602)"]
    part = f"{deaf} subprocess.Popen({task!r}, process_group=0); subprocess.Popen(['sleep', '603']); time.sleep(604)"
    before = set(psutil.Process().children(recursive=True))
    with Processes(tmp_path) as family:
        family.start("first", ["sleep", "605"])
        family.start("part", [sys.executable, "-c", part])
        wait_for(lambda: len(set(psutil.Process().children(recursive=True)) - before) == 5)
        started = set(psutil.Process().children(recursive=True)) - before
    assert [process for process in started if lives(process)] == []


def test_a_task_is_asked_to_end_while_the_first_part_still_serves_it(
    tmp_path: Path, environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "said"
    asked = f"""
import pathlib, psutil, signal, sys, time
def end(*_):
    lives = any('606' in p.cmdline() for p in psutil.process_iter() if p.status() != 'zombie')
    pathlib.Path({str(said)!r}).write_text(f'first part lives: {{lives}}')
    sys.exit()
signal.signal(signal.SIGTERM, end)
pathlib.Path({str(said)!r}).write_text('ready')
time.sleep(600)
"""
    part = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {asked!r}], process_group=0)"
    with Processes(tmp_path) as family:
        family.start("first", ["sleep", "606"])
        family.start("part", [sys.executable, "-c", part])
        wait_for(lambda: said.is_file() and said.read_text() == "ready")
    assert said.read_text() == "first part lives: True"


@pytest.mark.slow
def test_the_whole_of_it_starts_lets_people_in_by_role_and_ends(workspace: Path) -> None:
    import httpx

    with socket.create_server((serve.HOST, 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cl_steps.orchestration.serve", str(workspace), "--port", str(port)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "RETAIN"))}
    with subprocess.Popen(command, cwd=ROOT, env=clean, stdout=subprocess.PIPE, text=True) as served:
        said = "".join(iter(served.stdout.readline, "Ctrl+C ends it.\n"))  # type: ignore[union-attr]
        family = psutil.Process(served.pid).children(recursive=True)
        listening = {c.laddr for p in family for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        password = json.loads((workspace / ".retain" / "airflow" / serve.PASSWORDS).read_text())["reader"]
        site = f"http://127.0.0.1:{port}"
        token = httpx.post(f"{site}/auth/token", json={"username": "reader", "password": password}).json()
        stranger = httpx.get(f"{site}/retain/lines/retain_a/")
        reader = httpx.get(stranger.url, headers={"Authorization": f"Bearer {token['access_token']}"})
        served.send_signal(signal.SIGINT)
        assert served.wait(90) == 0
    assert password in said
    assert stranger.status_code == 401
    assert (reader.status_code, "No page yet" in reader.text) == (404, True)
    assert listening == {("127.0.0.1", port)}
    assert [process for process in family if lives(process)] == []


def lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def wait_for(condition: object) -> None:
    end = time.monotonic() + SECONDS
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)
