"""A copy of the source tree that faults are put into, and pytest in a child process of its own for each.

The large libraries are imported once, here; a child finds them and imports our modules anew from the copy. Commands
that a test starts find the copy, too.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SETTINGS = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "MPLBACKEND": "Agg"}
QUIET = ("-q", "--disable-plugin-autoload", "-W", "ignore::pytest.PytestAssertRewriteWarning")
"""Plugins of libraries cost a second a start; a module may have been imported before pytest is."""
HELD_BACK = ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST")


@dataclass(eq=False)
class Report:
    """A pytest plugin: the chosen tests in their order, how each ended, and the first that failed."""

    chosen: tuple[str, ...] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Only what was chosen; a test that is no longer there is none that fails."""
        if self.chosen is not None:
            order = {name: place for place, name in enumerate(self.chosen)}
            items[:] = sorted((i for i in items if i.nodeid in order), key=lambda item: order[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of each phase; a test counts where it passed."""
        if report.failed:
            self.failed.append(report.nodeid)
            self.seconds.pop(report.nodeid, None)
        elif report.passed and (report.when == "setup" or report.nodeid in self.seconds):
            self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration


@dataclass(frozen=True)
class Ended:
    """How pytest ended: its exit code (None: killed after its time), and what its child left as JSON."""

    code: int | None
    left: Any
    seconds: float


class Copy:
    """The tree of `root` in a temporary folder; this process stays outside of our modules."""

    def __init__(self, root: Path, heavy: Iterable[str] = ()) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="mutants-"))
        self.root, self.origin = self.place / "c", root
        names = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            check=True,
            capture_output=True,
        ).stdout
        for name in filter(None, names.decode().split("\0")):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            if (root / name).exists():
                shutil.copy2(root / name, self.root / name, follow_symlinks=False)
        os.environ.update(SETTINGS)
        for name in heavy:
            importlib.import_module(name)
        self._clock = int(time.time())

    def close(self) -> None:
        """The copy is gone."""
        shutil.rmtree(self.place, ignore_errors=True)

    def log(self) -> str:
        """What the last child printed."""
        return (self.place / "log.txt").read_text(encoding="utf-8", errors="replace")

    @contextmanager
    def fault(self, path: str, content: bytes) -> Iterator[None]:
        """Within it the module at `path` has this content; bytecode is known by its time in seconds and its size."""
        file = self.root / path
        before, times = file.read_bytes(), file.stat()
        self._clock += 1
        file.write_bytes(content)
        os.utime(file, (self._clock, self._clock))
        try:
            yield
        finally:
            file.write_bytes(before)
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))

    def pytest(self, tests: Iterable[str], limit: float, *words: str) -> Ended:
        """Run tests by their ids until one fails."""
        chosen = tuple(tests)
        files = dict.fromkeys(name.partition("::")[0] for name in chosen)

        def work() -> tuple[int, Any]:
            report = Report(chosen)
            code = pytest.main(["-x", *QUIET, f"--basetemp={self.place}/t/p", *words, *files], plugins=[report])
            return int(code), report.failed[:1]

        return self.child(work, limit)

    def child(self, work: Callable[[], tuple[int, Any]], limit: float) -> Ended:
        """Call `work` in a child whose folder is the copy; what it starts ends with it."""
        began, left = time.monotonic(), self.place / "left.json"
        left.unlink(missing_ok=True)
        (self.place / "t").mkdir()
        child = os.fork()
        if child == 0:
            self._become(work, left)
        try:
            code = _wait(child, began + limit)
        finally:
            _kill_group(child)
            shutil.rmtree(self.place / "t", ignore_errors=True)
        found = json.loads(left.read_bytes()) if left.exists() else None
        return Ended(code, found, time.monotonic() - began)

    def _become(self, work: Callable[[], tuple[int, Any]], left: Path) -> None:
        code = 70
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            log = os.open(self.place / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for number, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
                os.dup2(file, number)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            os.chdir(self.root)
            for name in HELD_BACK:
                os.environ.pop(name, None)
            os.environ.update(PYTHONPATH=str(self.root), TMPDIR=str(self.place / "t"))
            tempfile.tempdir = None
            sys.path[:] = [str(self.root), *(folder for folder in sys.path if folder not in ("", str(self.origin)))]
            for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
                del sys.modules[name]
            code, found = work()
            left.write_text(json.dumps(found), encoding="utf-8")
        except BaseException:  # whatever it is: the child ends here, and the log says why
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _wait(child: int, until: float) -> int | None:
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def _kill_group(child: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(child, 0)
