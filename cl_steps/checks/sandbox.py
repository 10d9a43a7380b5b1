"""A closed room for checks: a process of its own with copies of its inputs, no secrets, no network, and limits.

Its environment is made from nothing. `launch.py` gives up files with Landlock, and sockets and much else with a filter
of system calls; where `unshare` may make namespaces, no other process is seen, either. `watching.py` ends it where all
of it together takes too much. What it leaves is one JUnit file, which is read as hostile: at worst it says that the
check passed which wrote it.

In a pod, `apart.py` puts the room of the owner's checks into a container of its own besides.

A ready sandbox was tried first: bubblewrap (and nsjail, which works the same way) makes namespaces, and says "no
permissions to create new namespace" in a pod that meets the `restricted` standard, which is where checks run at night.
Landlock and seccomp need no permission there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cl_steps
from cl_steps.checks import launch, syscalls
from cl_steps.checks.clearing import clear
from cl_steps.checks.junit import Case, read_cases
from cl_steps.checks.watching import End, watch
from cl_steps.config import Params
from cl_steps.errors import UsageError

PACKAGE = Path(cl_steps.__file__).parent
INPUTS = "RETAIN_CHECK_INPUTS"
NAMESPACES = ("unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
ISOLATION = "RETAIN_CHECKS_ISOLATION"
"""Of the deployment, never of a workspace: `none` lets checks run where they cannot be confined."""
REPORT = "out/junit.xml"
NO_REPORT = "they ended without a report"
SYSTEM = (
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/filesystems",
    "/proc/sys/kernel",
    "/proc/sys/vm/overcommit_memory",
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


def run_suite(tests: Path, figures: Path, params: Params, seconds: int, *, ours: bool = False) -> Suite:
    """Run the tests of a folder on copies of the figures and parameters, for `seconds` at most.

    Those that are `ours` run also where nothing can be confined.

    Raises:
        UsageError: a file among the tests is a symbolic link, or this machine cannot confine them.
    """
    confined = can_be_confined(ours)
    room = Path(tempfile.mkdtemp(prefix="retain-checks-")).resolve()
    try:
        furnish(room, tests, figures, params)
        end = work(room, seconds, params.gate.checks_bytes, confined)
        return judged(end, read_cases(room / REPORT, str(room)))
    finally:
        clear(room)


@cache
def isolation() -> dict[str, bool]:
    """What is closed here: `files` by Landlock, `calls` and `network` by seccomp, `processes` by namespaces."""
    apart = bool(_namespaces())
    calls = syscalls.is_known()
    return {"files": launch.landlock_version() > 0, "calls": calls, "network": calls or apart, "processes": apart}


def can_be_confined(ours: bool = False) -> bool:
    """Whether they are to be confined: they are, or they are ours, or the deployment says that they need not be.

    Raises:
        UsageError: they are to be, and this machine cannot do it.
    """
    lacking = [name for name in ("files", "calls") if not isolation()[name]]
    if not lacking:
        return True
    if ours or os.environ.get(ISOLATION) == "none":
        return False
    raise UsageError(
        "this machine cannot confine your checks (no Landlock, which Linux has since 5.13, or no seccomp): run the "
        f"gate elsewhere, or let the deployment say {ISOLATION}=none"
    )


def furnish(room: Path, tests: Path, figures: Path, params: Params) -> None:
    """Put into an empty folder what checks are given, and where they may write.

    Raises:
        UsageError: a file among the tests is a symbolic link.
    """
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


def work(room: Path, seconds: int, memory_bytes: int, confined: bool) -> End:
    """Run the checks of a furnished room to their end; what they say is in its REPORT."""
    command = [*_namespaces(), sys.executable, "-s", "-P", "-B", str(PACKAGE / "checks" / "launch.py")]
    process = subprocess.Popen(
        [*command, json.dumps(_spec(room, seconds, memory_bytes, confined))],
        cwd=room / "checks",
        env=_environment(room),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return watch(process, (room / "out", room / "tmp"), seconds, memory_bytes)


def _spec(room: Path, seconds: int, memory_bytes: int, confined: bool) -> dict[str, object]:
    python = {sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values()}
    options = [
        "-q",
        "-pno:cacheprovider",
        "-pcl_steps.checks.plugin",
        f"-c{os.devnull}",
        f"--rootdir={room / 'checks'}",
        f"--confcutdir={room / 'checks'}",
        f"--basetemp={room / 'tmp' / 'pytest'}",
        f"--junitxml={room / REPORT}",
        "-ojunit_family=xunit2",
    ]
    return {
        "seconds": seconds,
        "bytes": memory_bytes,
        "confined": confined,
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


def judged(end: End, cases: tuple[Case, ...] | None) -> Suite:
    """What came of a suite, from how its room ended and what its report says."""
    if end.problem:
        return Suite(cases or (), end.problem)
    if cases is None:
        return Suite((), f"{NO_REPORT} (exit code {end.code})")
    if not cases:
        return Suite((), "they hold no test")
    unexplained = end.code != 0 and not any(case.failed for case in cases)
    return Suite(cases, f"they ended with exit code {end.code}" if unexplained else "")
