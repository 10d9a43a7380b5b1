"""A closed room for checks: a process of its own with copies of its inputs, no secrets, no network, and limits.

Its environment is made from nothing. `launch.py` gives up files and TCP with Landlock; where `unshare` may make
namespaces there is no network at all and no other process to be seen. What it leaves is one JUnit file, which is
read as hostile: at worst it says that the check passed which wrote it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cl_steps
from cl_steps.checks import launch
from cl_steps.checks.junit import Case, read_cases
from cl_steps.checks.plugin import INPUTS
from cl_steps.config import Params
from cl_steps.errors import UsageError

PACKAGE = Path(cl_steps.__file__).parent
NAMESPACES = ("unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")
NO_REPORT = "they ended without a report"
SYSTEM = (
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/proc",  # of others, Landlock and the namespace show nothing that is secret
    "/sys/devices/system",
    "/dev/urandom",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/mime.types",
)
"""What Python, NumPy and PyArrow read of a Linux system; anything else is not there for a check."""


@dataclass(frozen=True)
class Suite:
    """What came of a suite: its cases, and what went wrong with it as a whole (empty: nothing)."""

    cases: tuple[Case, ...]
    problem: str = ""


def run_suite(tests: Path, figures: Path, params: Params, seconds: int) -> Suite:
    """Run the tests of a folder on copies of the figures and parameters, for `seconds` at most.

    Raises:
        UsageError: a file among the tests is a symbolic link.
    """
    with tempfile.TemporaryDirectory(prefix="retain-checks-") as name:
        room = Path(name).resolve()
        _furnish(room, tests, figures, params)
        code = _run(room, seconds, params.gate.checks_bytes)
        return _judged(code, read_cases(room / "out" / "junit.xml", str(room)), seconds)


@cache
def isolation() -> dict[str, bool]:
    """What this machine lets us close: `files` and TCP by Landlock, `network` and processes by namespaces."""
    return {"files": launch.landlock_version() > 0, "network": bool(_namespaces())}


def _furnish(room: Path, tests: Path, figures: Path, params: Params) -> None:
    for path in tests.rglob("*"):
        if path.is_symlink():
            raise UsageError(f"{path} is a symbolic link, which checks may not hold: put the file itself there")
    shutil.copytree(tests, room / "checks", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(figures, room / "inputs" / "figures")
    (room / "inputs" / "params.json").write_text(params.model_dump_json(), encoding="utf-8")
    for path in (room / "checks", room / "inputs"):
        _make_read_only(path)
    for name in ("out", "tmp"):
        (room / name).mkdir()


def _make_read_only(folder: Path) -> None:
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)


def _run(room: Path, seconds: int, memory_bytes: int) -> int | None:
    """The exit code, or None where the time was up."""
    command = [*_namespaces(), sys.executable, "-s", "-P", "-B", str(PACKAGE / "checks" / "launch.py")]
    process = subprocess.Popen(
        [*command, json.dumps(_spec(room, seconds, memory_bytes))],
        cwd=room / "checks",
        env=_environment(room),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _spec(room: Path, seconds: int, memory_bytes: int) -> dict[str, object]:
    python = {sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values()}
    options = [
        "-q",
        "-pno:cacheprovider",
        "-pcl_steps.checks.plugin",
        f"-c{os.devnull}",
        f"--rootdir={room / 'checks'}",
        f"--confcutdir={room / 'checks'}",
        f"--basetemp={room / 'tmp' / 'pytest'}",
        f"--junitxml={room / 'out' / 'junit.xml'}",
        "-ojunit_family=xunit2",
    ]
    return {
        "seconds": seconds,
        "bytes": memory_bytes,
        "path": str(PACKAGE.parent),
        "readable": [*SYSTEM, *sorted(python), str(PACKAGE), str(room)],
        "writable": [str(room / "out"), str(room / "tmp")],
        "arguments": [*options, str(room / "checks")],
    }


def _environment(room: Path) -> dict[str, str]:
    """All that the process sees of the environment: nothing is inherited."""
    home = str(room / "tmp")
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "TMPDIR": home,
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        INPUTS: str(room / "inputs"),
        **threads,
    }


@cache
def _namespaces() -> tuple[str, ...]:
    """The command that leaves network and processes behind; empty where the machine does not allow it."""
    try:
        done = subprocess.run([*NAMESPACES, "true"], capture_output=True, timeout=10, check=False, env={})
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return NAMESPACES if done.returncode == 0 else ()


def _judged(code: int | None, cases: tuple[Case, ...] | None, seconds: int) -> Suite:
    if code is None:
        return Suite(cases or (), f"they took longer than {seconds} s")
    if cases is None:
        return Suite((), f"{NO_REPORT} (exit code {code})")
    if not cases:
        return Suite((), "they hold no test")
    unexplained = code != 0 and not any(case.failed for case in cases)
    return Suite(cases, f"they ended with exit code {code}" if unexplained else "")
