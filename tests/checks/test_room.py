"""The room of checks against hostile ones: each ends in time, with a reason, and reaches nothing outside."""

from __future__ import annotations

import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cl_steps.checks import launch, syscalls
from cl_steps.checks import sandbox as room
from cl_steps.checks.clearing import clear
from cl_steps.checks.junit import read_cases
from cl_steps.checks.sandbox import Suite, run_suite
from cl_steps.config import Gate, Params
from cl_steps.errors import UsageError
from cl_steps.stats.figures import write_figures
from tests.stats.nights import night

SECONDS = 12
PARAMS = Params(gate=Gate(checks_bytes=2 * 2**30))
HEAD = """
import ctypes, os, signal, sys, time
ROOM = os.path.dirname(os.getcwd())
JUNIT, TMP = ROOM + "/out/junit.xml", ROOM + "/tmp"
libc = ctypes.CDLL(None, use_errno=True)
def gone(path):
    try: os.unlink(path)
    except OSError: pass
def report(text, encoding="utf-8"):
    open(JUNIT, "w", encoding=encoding).write(text); os._exit(0)
"""
PASSED = '<testsuites><testsuite><testcase classname="a" name="b"/></testsuite></testsuites>'


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    write_figures(folder, night())
    return folder


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No folder of a room, and no process of one."""
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    yield
    assert list(place.iterdir()) == []
    assert [path for path in Path("/proc").glob("[0-9]*") if str(place) in words_of(path)] == []


def words_of(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(errors="replace")
    except OSError:
        return ""


def run(tmp_path: Path, figures: Path, body: str, seconds: int = SECONDS) -> Suite:
    """What comes of a check with that body."""
    checks = tmp_path / "checks"
    checks.mkdir()
    (checks / "test_hostile.py").write_text(HEAD + body, encoding="utf-8")
    began = time.monotonic()
    found = run_suite(checks, figures, PARAMS, seconds)
    assert time.monotonic() - began < seconds + 20
    return found


ENDS = {
    "a pipe as the report": ("def test_a(): gone(JUNIT); os.mkfifo(JUNIT); os._exit(0)", "fails"),
    "a folder as the report": ("def test_a(): os.mkdir(JUNIT); os._exit(0)", "without a report"),
    "a link as the report": ("def test_a(): os.symlink('/etc/passwd', JUNIT); os._exit(0)", "without a report"),
    "a link in place of the folder": (
        "def test_a(): os.rmdir(ROOM + '/out'); os.symlink('/etc', ROOM + '/out'); os._exit(0)", "fails"
    ),
    "a huge report": ("def test_a(): report('<a>' + 'x' * 9 * 2**20 + '</a>')", "without a report"),
    "a deep report": ("def test_a(): report('<a>' * 10**6 + '</a>' * 10**6)", "without a report"),
    "entities in UTF-16": (
        "def test_a(): report('<?xml version=\"1.0\" encoding=\"utf-16\"?><!DOCTYPE z [<!ENTITY b \"hello\">]>"
        "<testsuites><testsuite><testcase classname=\"a\" name=\"&b;\"/></testsuite></testsuites>', 'utf-16')",
        "without a report",
    ),
    "a document type with a mark of order": (
        f"def test_a(): report('<!DOCTYPE z>' + {PASSED!r}, 'utf-8-sig')", "without a report"
    ),
    "deep folders": (
        "def test_a():\n    os.chdir(TMP)\n    for _ in range(5000): os.mkdir('d'); os.chdir('d')\n    os._exit(0)",
        "without a report",
    ),
    "folders that nobody may enter": (
        "def test_a():\n    os.makedirs(TMP + '/a/b')\n    open(TMP + '/a/b/c', 'w').close()\n"
        "    os.mkdir(TMP + '/a/shut', 0)\n    os.chmod(TMP + '/a/b', 0); os.chmod(TMP, 0)\n    os._exit(0)",
        "without a report",
    ),
    "odd names": (
        "def test_a():\n    os.chdir(TMP)\n    for name in (b'\\xff', b'-rf', b'\\n', b'x' * 255): os.mkdir(name)\n"
        "    os._exit(0)",
        "without a report",
    ),
    "it sleeps": ("def test_a(): time.sleep(1000)", "longer than"),
    "it ignores every signal": (
        "def test_a():\n    for number in range(1, 65):\n        try: signal.signal(number, signal.SIG_IGN)\n"
        "        except (OSError, ValueError): pass\n    time.sleep(1000)",
        "longer than",
    ),
    "a process that stays": (
        "def test_a():\n    if os.fork() == 0:\n        try: os.setsid()\n        except OSError: pass\n"
        "        if os.fork() == 0: time.sleep(300)\n        os._exit(0)",
        "passes",
    ),
    "stopped processes": (
        "def test_a():\n    for _ in range(3):\n        if os.fork() == 0: os.kill(os.getpid(), signal.SIGSTOP)\n"
        "    time.sleep(1000)",
        "longer than",
    ),
    "many processes": (
        "def test_a():\n    for _ in range(300):\n        if os.fork() == 0: time.sleep(60); os._exit(0)\n"
        "    time.sleep(60)",
        "processes",
    ),
    "memory of many": (
        "def test_a():\n    for _ in range(8):\n        if os.fork() == 0: held = b'x' * 500 * 2**20; time.sleep(60)\n"
        "    time.sleep(60)",
        "bytes of memory",
    ),
    "many bytes": (
        "def test_a():\n    for n in range(40): open(f'{TMP}/{n}', 'wb').write(b'x' * 30 * 2**20)\n    time.sleep(60)",
        "MiB",
    ),
    "many files": (
        "def test_a():\n    for n in range(10**6): open(f'{TMP}/{n}', 'w').close()", "files"
    ),
    "a large file": ("def test_a(): open(TMP + '/f', 'wb').write(b'x' * (100 * 2**20))", "fails"),
    "a crash": ("def test_a(): ctypes.string_at(0)", "without a report"),
    "an end": ("def test_a(): os._exit(0)", "without a report"),
    "a recursion": ("def test_a():\n    def f(): f()\n    f()", "fails"),
    "no Python": ("def test_a(:", "fails"),
    "a missing import": ("import no_such_module", "fails"),
    "all skipped": ("import pytest\npytestmark = pytest.mark.skip\ndef test_a(): assert 0", "passes"),
    "many cases": (
        "import pytest\n@pytest.mark.parametrize('i', range(3000))\ndef test_a(i): assert i", "fails"
    ),
    "words for a terminal": ("def test_a(): raise AssertionError('\\x1b[2J\\u202e<script>')", "fails"),
}  # fmt: skip
SLOW = {"many cases", "it ignores every signal", "stopped processes", "many files", "it sleeps"}


@pytest.mark.parametrize("how", [pytest.param(how, marks=[pytest.mark.slow] * (how in SLOW)) for how in ENDS])
def test_it_ends_with_a_reason(tmp_path: Path, figures: Path, how: str) -> None:
    body, expected = ENDS[how]
    found = run(tmp_path, figures, body)
    if expected == "passes":
        assert not found.problem, found
    elif expected == "fails":
        assert found.problem or any(case.failed for case in found.cases)
    else:
        assert expected in found.problem, found
    assert "\x1b" not in str(found)


OUTSIDE = {
    "its mode": "os.chmod(PATH, 0o777)",
    "its owner": "os.chown(PATH, 65534, 65534)",
    "its times": "os.utime(PATH, (1, 1))",
    "its attributes": "os.setxattr(PATH, 'user.x', b'1')",
    "its bytes": "open(PATH, 'w').write('spoilt')",
    "its length": "os.truncate(PATH, 0)",
    "its name": "os.rename(PATH, PATH + 'x')",
    "another name": "os.link(PATH, TMP + '/x')",
    "its being there": "os.unlink(PATH)",
    "its mode, by a descriptor": "os.fchmod(os.open(PATH, os.O_PATH), 0o777)",
    "its mode, by a link": "os.symlink(PATH, TMP + '/l'); os.chmod(TMP + '/l', 0o777)",
    "its mode, by the number of the call": "libc.syscall(90, PATH.encode(), 0o777)",
    "a file beside it": "open(PATH + '.new', 'w').close()",
    "a folder beside it": "os.mkdir(PATH + '.new')",
}


def test_nothing_outside_is_reached(tmp_path: Path, figures: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("as it was")
    (outside / "file").chmod(0o600)
    before = facts_of(outside)
    body = f"PATH = {str(outside / 'file')!r}\n"
    for number, act in enumerate(OUTSIDE.values()):
        body += f"def test_{number}():\n    try:\n        {act}\n    except OSError: pass\n"
    found = run(tmp_path, figures, body)
    assert len(found.cases) == len(OUTSIDE)
    assert facts_of(outside) == before


def facts_of(folder: Path) -> list[tuple[object, ...]]:
    found = []
    for path in sorted([folder, *folder.rglob("*")]):
        facts = path.lstat()
        attributes = os.listxattr(path, follow_symlinks=False)
        found.append(
            (path.name, facts.st_mode, facts.st_uid, facts.st_mtime_ns, facts.st_size, facts.st_nlink, attributes)
        )
    return found


REFUSED = {
    "a socket of the network": "import socket; socket.socket(socket.AF_INET)",
    "a datagram": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "a socket of this machine": "import socket; socket.socket(socket.AF_UNIX)",
    "a raw socket": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "a session": "os.setsid()",
    "a device": "os.mknod(TMP + '/d', 0o20600, os.makedev(1, 1))",
    "namespaces": "check(libc.unshare(0x10000000))",
    "io_uring": "check(libc.syscall(425, 8, ctypes.create_string_buffer(120)))",
    "tracing": "check(libc.ptrace(0, 0, 0, 0))",
    "keys": "check(libc.syscall(250 if os.uname().machine == 'x86_64' else 219, 0, -3, 0))",
    "a mount": "check(libc.mount(b'x', b'/', b'tmpfs', 0, None))",
    "a secret": "open(SECRET).read()",
    "the words of other processes": "open(f'/proc/{PARENT}/cmdline').read()",
    "another's environment": "open(f'/proc/{PARENT}/environ').read()",
    "a signal to another": "os.kill(PARENT, 0)",
}


def test_what_no_check_needs_is_refused(tmp_path: Path, figures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    (tmp_path / "signing.pem").write_text("hunter2")
    body = f"SECRET, PARENT = {str(tmp_path / 'signing.pem')!r}, {os.getpid()}\n"
    body += "def check(result):\n    if result < 0: raise OSError(ctypes.get_errno(), 'refused')\n"
    for number, act in enumerate(REFUSED.values()):
        body += (
            f"def test_{number}():\n    try:\n        {act}\n    except OSError: return\n    assert 0, 'it was let'\n"
        )
    body += "def test_environment(): assert 'hunter2' not in repr(dict(os.environ))\n"
    found = run(tmp_path, figures, body)
    let = [list(REFUSED)[int(case.name[5:])] for case in found.cases if case.failed]
    if not room.isolation()["processes"]:
        let = [name for name in let if name not in ("a signal to another", "the words of other processes")]
    assert let == []
    assert len(found.cases) == len(REFUSED) + 1


HONEST = """
import asyncio, shutil, subprocess, threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np, pandas as pd, pyarrow as pa, scipy.stats
def test_figures(evaluation, params, tmp_path):
    assert evaluation.slices and params.gate.level
    table = pd.DataFrame({"x": np.arange(10)})
    table.to_parquet(tmp_path / "x.parquet")
    assert pa.parquet.read_table(tmp_path / "x.parquet").num_rows == 10 if hasattr(pa, "parquet") else True
    assert scipy.stats.norm.cdf(0) == 0.5
    assert np.linalg.svd(np.eye(50))[1].sum() == 50
def test_files(tmp_path):
    (tmp_path / "a").write_text("a")
    shutil.copy2(tmp_path / "a", tmp_path / "b")
    shutil.copytree(tmp_path, tmp_path.with_name("c"))
    os.chmod(tmp_path / "a", 0o600)
    assert (tmp_path / "b").read_text() == "a"
def test_threads():
    done = []
    threads = [threading.Thread(target=done.append, args=(n,)) for n in range(8)]
    [thread.start() for thread in threads]; [thread.join() for thread in threads]
    assert sorted(done) == list(range(8))
def test_processes():
    assert subprocess.run([sys.executable, "-c", "print(7)"], capture_output=True, text=True).stdout == "7\\n"
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(abs, [-1, -2])) == [1, 2]
def test_loops():
    async def seven(): await asyncio.sleep(0); return 7
    assert asyncio.run(seven()) == 7
"""


def test_honest_checks_work_as_anywhere(tmp_path: Path, figures: Path) -> None:
    found = run(tmp_path, figures, HONEST, 60)
    assert [(case.name, case.message) for case in found.cases if case.outcome != "passed"] == []
    assert len(found.cases) == 5
    assert not found.problem


POD = ("setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", "--no-new-privs", "--bounding-set=-all")
"""As in a pod of the `restricted` standard: another user, no capability, no new privileges."""
IN_A_POD = """
import json, os, pathlib, sys, tempfile
from cl_steps.checks import sandbox as room
from cl_steps.config import Params
here, libraries = pathlib.Path(sys.argv[1]), os.environ["PYTHONPATH"]
tempfile.tempdir, room._namespaces = str(here / "tmp"), lambda: ()
room.SYSTEM = (*room.SYSTEM, *libraries.split(os.pathsep))
environment = room._environment
room._environment = lambda place: {**environment(place), "PYTHONPATH": libraries}
suite = room.run_suite(here / "checks", here / "figures", Params(), 60)
print(json.dumps([[case.name, case.outcome] for case in suite.cases] + [suite.problem]))
"""


def other_users_python(place: Path) -> list[str]:
    """A Python that the pod's user may run, with our libraries; the test is left out where there is none."""
    if os.getuid() or not shutil.which("setpriv"):
        pytest.skip("only root becomes another user, by setpriv")
    libraries = os.pathsep.join([str(place), *(path for path in sys.path if path.endswith("site-packages"))])
    for python in (str(Path(sys.executable).resolve()), "/usr/bin/python3"):
        words = ["env", f"PYTHONPATH={libraries}", *POD, python]
        try_it = "import numpy, pytest, subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
        if subprocess.run([*words, "-c", try_it], capture_output=True, check=False).returncode == 0:
            return words
    pytest.skip("another user can run no Python that has our libraries")


def test_a_pod_without_rights_closes_the_room_as_well(figures: Path) -> None:
    place = Path("/var/tmp") / f"retain-room-{os.getpid()}"
    try:
        for name, source in {"cl_steps": room.PACKAGE, "figures": figures}.items():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        (place / "checks").mkdir()
        (place / "tmp").mkdir()
        body = "def test_no(): import socket; socket.socket()\ndef test_yes(evaluation): assert evaluation.slices\n"
        (place / "checks/test_x.py").write_text(body)
        words = other_users_python(place)
        subprocess.run(["chown", "-R", "65532", str(place)], check=True)
        done = subprocess.run([*words, "-c", IN_A_POD, str(place)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [["test_no", "failed"], ["test_yes", "passed"], ""]
    finally:
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.parametrize("lacks", ["files", "calls"])
def test_where_checks_cannot_be_confined_they_do_not_run(
    tmp_path: Path, figures: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    monkeypatch.setattr(room, "isolation", lambda: {"files": True, "calls": True, lacks: False})
    with pytest.raises(UsageError, match="RETAIN_CHECKS_ISOLATION"):
        run(tmp_path, figures, "def test_a(): pass")
    assert run_suite(tmp_path / "checks", figures, PARAMS, SECONDS, ours=True).problem == ""
    monkeypatch.setenv("RETAIN_CHECKS_ISOLATION", "nothing")
    with pytest.raises(UsageError, match="RETAIN_CHECKS_ISOLATION"):
        run_suite(tmp_path / "checks", figures, PARAMS, SECONDS)
    monkeypatch.setenv("RETAIN_CHECKS_ISOLATION", "none")
    assert [case.outcome for case in run_suite(tmp_path / "checks", figures, PARAMS, SECONDS).cases] == ["passed"]


def test_a_room_that_turns_out_open_runs_no_check(tmp_path: Path) -> None:
    spec = {"seconds": 9, "bytes": 2**31, "readable": [], "writable": [], "path": str(room.PACKAGE.parent),
            "arguments": [str(tmp_path)], "confined": True}  # fmt: skip
    code = f"import sys, json; sys.argv[1:] = [{json.dumps(spec)!r}]; import runpy\n"
    code += f"sys.path.insert(0, {str(room.PACKAGE.parent)!r})\n"
    code += "from cl_steps.checks import launch; launch.landlock_version = lambda: 0\nsys.exit(launch.main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == launch.OPEN, done.stderr


def test_the_filter_is_right_for_both_architectures() -> None:
    for machine, (column, _) in syscalls.ARCHITECTURES.items():
        made = syscalls.program(machine)
        assert len(made) % 8 == 0
        assert len(made) // 8 < 4096
        numbers = [pair[column] for table in (syscalls.NOTHING_DONE, syscalls.REFUSED) for pair in table.values()]
        known = [number for number in numbers if number is not None]
        assert len(known) == len(set(known)), "a number stands for one call"
    assert platform.machine() in syscalls.ARCHITECTURES


def test_clearing_follows_nothing(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("kept")
    folder = tmp_path / "folder"
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/link").symlink_to(tmp_path / "kept")
    (folder / "to").symlink_to(tmp_path / "kept/file")
    os.mkfifo(folder / "a/pipe")
    (folder / "a/b").chmod(0)
    clear(folder)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "scratch") == ["kept"]
    assert (tmp_path / "kept/file").read_text() == "kept"
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) != stat.S_IRWXU
    clear(tmp_path / "nothing")


def test_what_is_no_plain_file_is_no_report(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "real").write_text(PASSED)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("pipe", "link", ".", "missing"):
        assert read_cases(tmp_path / name, "/room") is None
    found = read_cases(tmp_path / "real", "/room")
    assert found is not None
    assert len(found) == 1
