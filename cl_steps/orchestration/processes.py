"""Several processes as one: started together, ended together with all that they started, whatever its group."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from cl_steps.errors import Unavailable

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_SECONDS = 30.0
LAST_SECONDS = 10.0


class Processes:
    """A context: what is started in it has ended when it is left."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._parts: dict[str, psutil.Popen] = {}
        self._family: set[psutil.Process] = set()

    def __enter__(self) -> Self:
        """Make the folder of the logs."""
        self.logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End all, whoever asks again meanwhile."""
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)
        self.end()

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a process in a group of its own: a Ctrl+C reaches us alone, and we end things in order."""
        with (self.logs / f"{name}.log").open("wb") as log:
            self._parts[name] = psutil.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def check(self) -> None:
        """Raise Unavailable where one ended by itself."""
        for name, process in self._parts.items():
            if process.poll() is not None:
                raise Unavailable(f"Airflow's {name} ended by itself: {self._last_words(name)}")

    def watch(self) -> None:
        """Wait for ever; raises Unavailable where one ends by itself."""
        while True:
            self.check()
            time.sleep(1)

    def end(self) -> None:
        """Ask all but the first part to end, and the work they are at; then whatever is left; then make it end.

        The first part is the one that the others need until they have ended.
        """
        self._note_family()
        at_work = [*tuple(self._parts.values())[1:], *filter(_leads_a_group, self._family)]
        self._ask(at_work)
        self._wait(GRACE_SECONDS, at_work)
        self._ask(self._left())
        self._wait(LAST_SECONDS, self._left())
        for process in self._left():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs([*self._parts.values(), *self._left()], timeout=LAST_SECONDS)

    def _ask(self, processes: Iterable[psutil.Process]) -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.terminate()

    def _wait(self, seconds: float, processes: Iterable[psutil.Process]) -> None:
        """Wait for their end, and note meanwhile what they start."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and any(_lives(process) for process in processes):
            self._note_family()
            time.sleep(0.2)

    def _note_family(self) -> None:
        """Remember the descendants: who loses its parent can no longer be found by it."""
        for process in (*self._parts.values(), *tuple(self._family)):
            with suppress(psutil.NoSuchProcess):
                self._family.update(process.children(recursive=True))

    def _left(self) -> list[psutil.Process]:
        return [process for process in (*self._parts.values(), *self._family) if _lives(process)]

    def _last_words(self, name: str) -> str:
        path = self.logs / f"{name}.log"
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'it said nothing'} ({os.fspath(path)})"


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _leads_a_group(process: psutil.Process) -> bool:
    """Whether it is a task or a step: they lead groups of their own, the parts' helpers do not."""
    with suppress(ProcessLookupError):
        return bool(os.getpgid(process.pid) == process.pid)
    return False
