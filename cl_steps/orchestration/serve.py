"""`make airflow`: the whole of Airflow on this machine, with a workspace's own DAG, until Ctrl+C.

Scheduler, DAG processor, triggerer and API server with the web interface, each a process of its own whose words go to
a log in Airflow's home. Nothing is reachable from other machines, and nobody is let in without a password.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

from cl_steps.errors import RetainError, Unavailable, UsageError
from cl_steps.orchestration.play import configure
from cl_steps.orchestration.processes import STOPS, Processes
from cl_steps.orchestration.registry import read, read_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

HOST = "127.0.0.1"
PARTS: dict[str, tuple[str, ...]] = {
    "api-server": (),
    "scheduler": ("--skip-serve-logs",),
    "dag-processor": (),
    "triggerer": ("--skip-serve-logs",),
}
"""Airflow's commands. Logs are read from the disk: a log server would listen on every address of the machine."""
ROLES = {
    "admin": ("admin", "everything"),
    "ops": ("op", "triggers, clears and answers; sees connections, variables and pools"),
    "reader": ("viewer", "looks, and changes nothing"),
}
"""User to Airflow's role and what it may do."""
SIGNS_TOKENS = "jwt-secret"
PASSWORDS = "simple_auth_manager_passwords.json.generated"
START_SECONDS = 180.0
TASKS = 4
"""So many tasks at once; each costs a waiting process."""
DATABASE = "RETAIN_DATABASE"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make airflow", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dir", nargs="?", default="demo-line", help="a workspace that has a .retain/lines.yaml")
    parser.add_argument("--port", type=int, default=8080)
    chosen = parser.parse_args(argv)
    try:
        serve(Path(chosen.dir), chosen.port)
    except RetainError as error:
        print(f"make airflow: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("ended")
    return 0


def serve(folder: Path, port: int) -> None:
    """Start everything and wait.

    Raises:
        UsageError: the folder has no lines.
        Unavailable: the port is taken, or a part of Airflow ended by itself.
        KeyboardInterrupt: somebody wants it to end; all of it has ended.
    """
    for number in STOPS:
        signal.signal(number, _interrupt)
    lines = _lines(folder)
    _require_port(port)
    home = folder.resolve() / ".retain" / "airflow"
    passwords = prepare(home, lines, port, os.environ.get(DATABASE, ""))
    print("starting Airflow", flush=True)
    make_database(lines)
    for fault in read(lines).faults:
        print(f"make airflow: {fault}", file=sys.stderr, flush=True)
    with Processes(home / "logs" / "serve") as processes:
        for part, options in PARTS.items():
            processes.start(part, [sys.executable, "-m", "airflow", part, *options])
        _wait_until_ready(processes, port)
        print(welcome(port, passwords, home), flush=True)
        processes.watch()


def prepare(home: Path, lines: Path, port: int, database: str = "") -> dict[str, str]:
    """The settings of all parts, in the environment that they inherit; returns the users' passwords.

    Must come before anything of Airflow is imported.
    """
    configure(home, lines)
    settings = {
        # Of all parts alike: where a home is new, each would otherwise make up its own, and refuse the others' tasks.
        "AIRFLOW__API_AUTH__JWT_SECRET": _kept_secret(home / SIGNS_TOKENS),
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{HOST}:{port}/execution/",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(TASKS),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / PASSWORDS),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, (role, _) in ROLES.items()),
    }
    os.environ.update(settings | ({"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database} if database else {}))
    return _passwords(home / PASSWORDS)


def make_database(lines: Path) -> None:
    """Make Airflow's tables or bring them up to date, and the pools that the lines' GPU steps wait in.

    Raises:
        Unavailable: the database cannot be reached.
    """
    from airflow.utils.db import initdb
    from sqlalchemy.exc import OperationalError

    logging.disable(logging.INFO)
    try:
        initdb()
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise Unavailable(f"Airflow's database cannot be reached ({reason}): start it, or unset {DATABASE}") from error
    for name, slots in pools(lines).items():
        _make_pool(name, slots)


def pools(lines: Path) -> dict[str, int]:
    """The pools that lines.yaml names for GPU steps, each with one slot: this machine's GPU."""
    named = {entry.profile.pool for entry in read_lines(lines)} - {"default_pool"}
    return dict.fromkeys(sorted(named), 1)


def _make_pool(name: str, slots: int) -> None:
    from airflow.models.pool import Pool

    if Pool.get_pool(name) is None:
        # A pod that trains is a deferred task: it holds its slot all the same.
        Pool.create_or_update_pool(name, slots, "GPU steps of Retain's lines", include_deferred=True)


def welcome(port: int, passwords: Mapping[str, str], home: Path) -> str:
    """What a person needs to begin."""
    users = "\n".join(f"  {name:<8}{passwords[name]:<20}{role}: {meaning}" for name, (role, meaning) in ROLES.items())
    return f"""
Airflow: http://localhost:{port}

  user    password            role
{users}

logs: {home / "logs" / "serve"}
Ctrl+C ends it."""


def _lines(folder: Path) -> Path:
    lines = folder / ".retain" / "lines.yaml"
    if not lines.is_file():
        raise UsageError(
            f"{folder} has no .retain/lines.yaml: `make demo` makes the demo's, then `make airflow` shows it"
        )
    return lines.resolve()


def _require_port(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise Unavailable(f"port {port} is taken: `make airflow PORT={port + 1}` takes another") from error


def _passwords(path: Path) -> dict[str, str]:
    """The users' passwords: those of last time, new ones for new users; for this machine's user alone to read."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    passwords = {name: found.get(name) or secrets.token_urlsafe(12) for name in ROLES}
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(json.dumps(passwords) + "\n", encoding="utf-8")
    return passwords


def _kept_secret(path: Path) -> str:
    """A secret that is made once, for this machine's user alone to read."""
    if not path.is_file():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(48), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _wait_until_ready(processes: Processes, port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while not _healthy(port):
        processes.check()
        if time.monotonic() > end:
            raise Unavailable(f"Airflow was not ready after {START_SECONDS:.0f} s: its logs are in {processes.logs}")
        time.sleep(0.5)


def _healthy(port: int) -> bool:
    try:
        with urlopen(f"http://{HOST}:{port}/api/v2/monitor/health", timeout=5) as answer:
            parts = json.load(answer)
    except (OSError, ValueError):
        return False
    return all(part["status"] == "healthy" for part in parts.values())


def _interrupt(_number: int, _frame: object) -> None:
    print("\nending Airflow", flush=True)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
