"""A Python process of its own that need not import the large libraries: forked from one that has.

    done = run(["-m", "cl_steps", "step", "update", ...])      # as subprocess.run(["python", "-m", ...]), 5 s sooner
    process = Fork(["-c", code, "words"], session=True)        # as subprocess.Popen

What such a process does, how it ends and what it leaves behind is a real one's; what it imports, and in what order, is
not. All of a test run's have one seed of string hashes.
"""

from __future__ import annotations

import json
import os
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from cl_steps.report import evidently_report
from tests.once import BEGUN_BY, PLACE, alone

ROOT = Path(__file__).parents[1]
PRELOADED = (
    *(f"cl_steps.steps.{step}" for step in ("ingest", "drift", "update", "evaluate", "gate", "promote", "close")),
    "cl_steps.commands.night", "cl_steps.commands.step", "dvc.repo", "evidently.core.container", "evidently.metrics",
    "evidently.legacy.renderers.html_widgets", "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "tests.lines.small",
)  # fmt: skip
INTEGER = struct.Struct("!i")


class Fork:
    """A process that runs `python WORDS`, in a session of its own if `session`; it writes to files, or nowhere."""

    def __init__(
        self, words: Sequence[object], *, env: Mapping[str, str] | None = None, session: bool = False, **files: Any
    ) -> None:
        wish = {"words": [str(word) for word in words], "env": dict(env or os.environ), "cwd": str(Path.cwd())}
        content = json.dumps({**wish, "session": session}).encode()
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(_server())
        with Path(os.devnull).open("wb") as nowhere:
            outputs = [files.get(name, nowhere).fileno() for name in ("stdout", "stderr")]
            socket.send_fds(self._connection, [INTEGER.pack(len(content))], outputs)
            self._connection.sendall(content)
            self.pid = self._integer()
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or the negative number of the signal that ended it; raises TimeoutError."""
        if self.returncode is None:
            self._connection.settimeout(timeout)
            self.returncode = os.waitstatus_to_exitcode(self._integer())
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """The same, or None while it runs."""
        try:
            return self.wait(0.001)
        except TimeoutError:
            return None

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def _integer(self) -> int:
        [found] = INTEGER.unpack(_exactly(self._connection, INTEGER.size))
        return int(found)


def run(words: Sequence[object], *, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `python WORDS` to its end; what it printed and said is text."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        code = Fork(words, env=env, stdout=stdout, stderr=stderr).wait()
        stdout.seek(0)
        stderr.seek(0)
        said = stdout.read().decode(), stderr.read().decode()
    return subprocess.CompletedProcess([str(word) for word in words], code, *said)


@cache
def _server() -> str:
    """Where the test run's server listens."""
    place = PLACE / "forks"
    with alone("forks"):
        if not place.exists():
            words = [sys.executable, "-m", "tests.forks", str(place)]
            process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True, text=True)
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            process.stdout.close()
            process.returncode = 0  # it ends after us: nobody waits for it
    return str(place)


def _exactly(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        more = connection.recv(size - len(content))
        if not more:
            raise ConnectionError("the server of forks is gone")
        content += more
    return content


def _serve(place: str) -> list[str]:
    """Fork for whoever asks; returns in each child, with what it is to run."""
    with selectors.DefaultSelector() as selector, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()
        print("ready", flush=True)
        selector.register(listener, selectors.EVENT_READ)
        selector.register(begun_by := os.pidfd_open(int(os.environ[BEGUN_BY])), selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj == begun_by:
                    os._exit(0)
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    length, outputs, _, _ = socket.recv_fds(connection, INTEGER.size, 2)
                    wish = json.loads(_exactly(connection, *INTEGER.unpack(length)))
                    pid = os.fork()
                    if not pid:
                        return _become(wish, outputs)
                    for output in outputs:
                        os.close(output)
                    connection.sendall(INTEGER.pack(pid))
                    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))
                else:
                    _tell_end(selector, key)


def _tell_end(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    pid, connection = key.data
    selector.unregister(key.fileobj)
    os.close(key.fd)
    _, status = os.waitpid(pid, 0)
    with connection:
        connection.sendall(INTEGER.pack(status))


def _become(wish: Mapping[str, Any], outputs: Sequence[int]) -> list[str]:
    if wish["session"]:
        os.setsid()
    os.chdir(wish["cwd"])
    os.environ.clear()
    os.environ.update(wish["env"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    for own, place in zip((nothing, *outputs), range(3), strict=True):
        os.dup2(own, place)
        os.close(own)
    return list(wish["words"])


def _run(kind: str, what: str, *arguments: str) -> None:
    """As `python -m MODULE ...` and `python -c CODE ...` do."""
    if kind == "-m":
        sys.argv = [what, *arguments]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    sys.argv = [kind, *arguments]
    main = sys.modules["__main__"] = ModuleType("__main__")
    exec(compile(what, "<string>", "exec"), main.__dict__)  # noqa: S102


if __name__ == "__main__":
    for module in PRELOADED:
        import_module(module)
    evidently_report.MAX_COLUMNS = 2  # its whole page takes as long as all else in a night of tests
    _run(*_serve(sys.argv[1]))
