"""A PostgreSQL server of one's own, behind a socket that its user alone can reach."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

BINARIES = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path("/usr/local/bin"), Path("/usr/bin")]
SERVER = next((folder for folder in BINARIES if (folder / "initdb").is_file()), None)
DRIVERS = ("psycopg2", "asyncpg")
ROOT_NEEDS = "postgres"
SECONDS = 60.0


def why_not() -> str:
    """Why there can be none here; empty where there can."""
    if SERVER is None:
        return "no PostgreSQL here: apt-get install postgresql"
    if not all(map(find_spec, DRIVERS)):
        return "no driver for PostgreSQL here: pip install psycopg2-binary asyncpg"
    if os.geteuid() == 0 and not _user():
        return "PostgreSQL refuses to run as root, and there is no user `postgres` here"
    return ""


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a fresh database; gone afterwards."""
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
    user = _user()
    assert user, why_not()
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _user() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(ROOT_NEEDS)
    except KeyError:
        return None


def _wait_for(path: Path, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + SECONDS
    while not path.exists():
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < end
        time.sleep(0.05)
