"""`servers.py` as a process beside a test: where it listens, and its users' files."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cl_steps.orchestration.pods.manifest import FILES
from tests.cluster.servers import credentials

PASSWORDS = {"step": "a-step", "opener": "an-opener", "trusted": "a-trusted"}


@dataclass(frozen=True)
class Running:
    """The process and where it listens."""

    process: subprocess.Popen[str]
    git: str
    s3: str

    def credentials(self, folder: Path, user: str, password: str | None = None) -> dict[str, str]:
        """Write a user's files into `folder`; the environment that names them, as a pod has it."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in credentials(self.git, self.s3, user, password or PASSWORDS[user]).items():
            (folder / name).write_text(content, encoding="utf-8")
        return {variable: str(folder / name) for variable, name in FILES.items()}

    def ask(self, path: str, method: str = "GET", user: str = "trusted") -> tuple[int, dict[str, object]]:
        """One request to the Git server's own pages."""
        connection = http.client.HTTPConnection(self.git.removeprefix("http://"), timeout=10)
        connection.request(method, path, headers={"Authorization": basic(user)})
        with contextlib.closing(connection), connection.getresponse() as answer:
            return answer.status, json.load(answer)

    def wait_until(self, up: bool, *ports: str) -> None:
        """Wait until every port takes connections, or none does."""
        deadline = time.monotonic() + 20
        while any(_listens(port) is not up for port in ports):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def basic(user: str) -> str:
    """The header with which a user comes."""
    return f"Basic {base64.b64encode(f'{user}:{PASSWORDS[user]}'.encode()).decode()}"


def _listens(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def running(root: Path, lines: str) -> Iterator[Running]:
    """The servers on free ports, with the bucket `retain` and those repositories; they rest 0.5 s at SIGUSR1."""
    secret = root / "passwords"
    secret.write_text("".join(f"{user}:{password}\n" for user, password in PASSWORDS.items()))
    program = [sys.executable, str(Path(__file__).with_name("servers.py")), "--root", str(root / "git")]
    words = ["--lines", lines, "--host", "127.0.0.1", "--git-port", "0", "--s3-port", "0"]
    rest = ["--passwords", str(secret), "--down-seconds", "0.5"]
    with (root / "log").open("w") as log:
        process = subprocess.Popen([*program, *words, *rest], stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout
        said = process.stdout.readline()
        assert said, (root / "log").read_text()
        ports = json.loads(said)
        try:
            yield Running(process, f"http://127.0.0.1:{ports['git']}", f"http://127.0.0.1:{ports['s3']}")
        finally:
            process.terminate()
            process.stdout.close()
            assert process.wait(10) == 0
