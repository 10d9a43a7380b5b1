"""The owner's checks in a container of their own: a process with a folder to share stands for it here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cl_steps.checks import apart
from cl_steps.checks.sandbox import Suite
from cl_steps.config import Gate, Params, RunSpec
from cl_steps.errors import Unavailable, UsageError
from cl_steps.run.context import Context
from cl_steps.stats.figures import write_figures
from cl_steps.steps import gate
from tests.stats.nights import night

SECONDS = 40
PARAMS = Params(gate=Gate(checks_bytes=2 * 2**30, checks_seconds=SECONDS))
FINE = "def test_fine(evaluation, params): assert evaluation.slices and params.gate.level\n"
PASSED = '<testsuites><testsuite><testcase classname="a" name="b"/></testsuite></testsuites>'


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """What the pod's two containers share."""
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with a good candidate's figures."""
    folder = tmp_path / "workspace"
    (folder / gate.FIGURES).mkdir(parents=True)
    write_figures(folder / gate.FIGURES, night(new=("neon-ink",), fidelity={"neon-ink": 0.5}))
    (folder / "checks").mkdir()
    return folder


@contextmanager
def container(shared: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The other container: the real entry point, with nothing in its environment."""
    command = [sys.executable, "-P", "-m", "cl_steps.checks.apart", str(shared)]
    process = subprocess.Popen(command, env={"PATH": os.environ["PATH"]}, cwd="/")
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def asked(workspace: Path, shared: Path, check: str = FINE, seconds: int = SECONDS) -> Suite:
    """What comes of an owner's check, by way of the shared folder."""
    (workspace / "checks" / "test_own.py").write_text(check, encoding="utf-8")
    return apart.run_apart(shared, workspace / "checks", workspace / gate.FIGURES, PARAMS, seconds)


def soon(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_gate_takes_the_word_of_the_other_container(
    workspace: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(apart.FOLDER, str(shared))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    look = f"""
import os
def test_who_runs_this():
    assert os.getcwd() == {str(shared / "work" / "checks")!r}
    assert "hunter2" not in repr(dict(os.environ))
def test_brand(evaluation): assert evaluation.new_slices == (), "the logo is gone " + os.getcwd()
"""
    (workspace / "checks" / "test_own.py").write_text(look, encoding="utf-8")
    with container(shared) as process:
        report = gate.run(Context(workspace, PARAMS, RunSpec()))
        assert process.poll() is None, "a container that ends is started anew"
    assert report.verdict == "reject"
    assert "your check test_own::test_brand failed: AssertionError: the logo is gone /checks" in report.why
    assert report.figures["user_checks"] == {"passed": 1, "failed": 1, "skipped": 0}
    assert report.figures["isolation"]["container"] is True
    assert report.figures["isolation"]["files"] is True
    assert str(shared) not in (workspace / "reports/junit.xml").read_text(encoding="utf-8")


def test_on_ones_own_machine_nothing_is_asked_of_a_container(workspace: Path, shared: Path) -> None:
    (workspace / "checks" / "test_own.py").write_text(FINE, encoding="utf-8")
    report = gate.run(Context(workspace, PARAMS, RunSpec()))
    assert (report.verdict, report.figures["isolation"]["container"]) == ("promote", False)
    assert list(shared.iterdir()) == []


def test_it_is_confined_as_anywhere_and_knows_no_way_out(workspace: Path, shared: Path) -> None:
    look = f"""
import os, socket, pytest
def test_network():
    with pytest.raises(OSError): socket.socket(socket.AF_INET)
@pytest.mark.parametrize("path", [{str(workspace / gate.FIGURES)!r}, {str(shared)!r}, "/etc/shadow"])
def test_files(path):
    with pytest.raises(OSError): os.listdir(path) if os.path.isdir(path) else open(path)
def test_writing():
    with pytest.raises(OSError): open({str(shared / "end.json")!r}, "w")
"""
    with container(shared):
        found = asked(workspace, shared, look)
    assert [case.outcome for case in found.cases] == ["passed"] * 5
    assert not found.problem


def test_a_room_is_whole_when_it_gets_its_name(workspace: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(room: Path, name: Path) -> None:
        assert name == shared / apart.ROOM
        assert json.loads((room / apart.TASK).read_text(encoding="utf-8")) == {
            "seconds": SECONDS, "bytes": PARAMS.gate.checks_bytes, "confined": True,
        }  # fmt: skip
        assert {path.name for path in room.iterdir()} == {apart.TASK, "checks", "inputs", "out", "tmp"}
        raise OSError("enough")

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(Unavailable, match="enough"):
        asked(workspace, shared)


def test_without_the_container_nothing_is_decided(
    workspace: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "TAKEN_SECONDS", 0.5)
    with pytest.raises(Unavailable, match=r"did not take up your checks within 0\.5 s"):
        asked(workspace, shared)
    with pytest.raises(Unavailable, match="cannot be used"):
        asked(workspace, shared / "missing")
    monkeypatch.setenv(apart.FOLDER, str(shared / "missing"))
    with pytest.raises(Unavailable):
        gate.run(Context(workspace, PARAMS, RunSpec()))
    assert not (workspace / "reports/junit.xml").exists()


def test_a_container_that_dies_and_is_started_anew_says_so(workspace: Path, shared: Path) -> None:
    check = "import time\ndef test_a(): time.sleep(300)\n"
    (workspace / "checks" / "test_own.py").write_text(check, encoding="utf-8")
    code = (
        "import sys; from pathlib import Path; from cl_steps.checks import apart; from cl_steps.config import Params;"
        "shared, tests, figures = map(Path, sys.argv[1:]);"
        f"print(apart.run_apart(shared, tests, figures, Params(), {SECONDS}))"
    )
    places = [str(shared), str(workspace / "checks"), str(workspace / gate.FIGURES)]
    waiting = subprocess.Popen([sys.executable, "-c", code, *places], stderr=subprocess.PIPE, text=True)
    with container(shared) as first:
        soon(lambda: bool(suites_of(first.pid)))
        first.send_signal(signal.SIGSTOP)
        # As Kubernetes does it: nothing of a container outlives its first process.
        for suite in suites_of(first.pid):
            os.killpg(suite, signal.SIGKILL)
    with container(shared):
        said = waiting.communicate(timeout=30)[1]
    assert waiting.returncode == 1
    assert "Unavailable: the checks' container was ended while your checks ran" in said


def suites_of(process: int) -> list[int]:
    """The processes in which a container runs checks."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8").split()
    return [int(child) for child in children if b"launch.py" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_a_container_that_stays_away_is_not_waited_for_for_ever(
    workspace: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "MARGIN_SECONDS", 0.5)
    with pytest.raises(Unavailable, match=r"did not answer within 1\.5 s"), answering(shared, lambda _: None):
        asked(workspace, shared, seconds=1)


@contextmanager
def answering(shared: Path, answer: Callable[[Path], object]) -> Iterator[None]:
    """A container that takes the room and leaves there what a test says, as a check that got out of its room would."""
    child = os.fork()
    if child == 0:
        soon(lambda: apart._taken(shared))
        answer(shared)
        os._exit(0)
    try:
        yield
    finally:
        os.waitpid(child, 0)


def left(shared: Path, end: object = None, junit: object = PASSED) -> None:
    """Leave both files, the end last."""
    (shared / "junit.xml").write_text(str(junit), encoding="utf-8")
    document = {"code": 0, "problem": "", "lost": False} if end is None else end
    (shared / ".end").write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    (shared / ".end").rename(shared / "end.json")


def instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Something else in place of a file."""

    def answer(shared: Path) -> None:
        if name == "end.json":
            (shared / "junit.xml").write_text(PASSED, encoding="utf-8")
            make(shared / name)
        else:
            make(shared / name)
            (shared / ".end").write_text(json.dumps({"code": 0, "problem": "", "lost": False}), encoding="utf-8")
            (shared / ".end").rename(shared / "end.json")

    return answer


SECRET = "/etc/passwd"
NO_END, NO_REPORT = "no end that can be read", "without a report"
HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe as the end": (instead("end.json", os.mkfifo), NO_END),
    "a link as the end": (instead("end.json", lambda path: path.symlink_to(SECRET)), NO_END),
    "a link to nothing as the end": (instead("end.json", lambda path: path.symlink_to("/nowhere")), NO_END),
    "a folder as the end": (instead("end.json", Path.mkdir), NO_END),
    "an endless end": (lambda shared: left(shared, "[" * 4000), NO_END),
    "a huge end": (lambda shared: left(shared, {"code": 0, "problem": "x" * 5000, "lost": False}), NO_END),
    "an end of another kind": (lambda shared: left(shared, [1, 2]), NO_END),
    "an end without a code": (lambda shared: left(shared, {"problem": "", "lost": False}), NO_END),
    "no number": (lambda shared: left(shared, {"code": "NaN", "problem": "", "lost": False}), NO_END),
    "a pipe as the report": (instead("junit.xml", os.mkfifo), NO_REPORT),
    "a link as the report": (instead("junit.xml", lambda path: path.symlink_to(SECRET)), NO_REPORT),
    "a folder as the report": (instead("junit.xml", Path.mkdir), NO_REPORT),
    "no report": (instead("junit.xml", lambda _: None), NO_REPORT),
    "a huge report": (lambda shared: left(shared, junit="<a>" + "x" * 9 * 2**20 + "</a>"), NO_REPORT),
    "a device of their words": (
        lambda shared: left(shared, {"code": 1, "problem": "\x1b[2J", "lost": False}), "?[2J"
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", HOSTILE)
def test_what_is_left_in_the_folder_is_read_as_hostile(workspace: Path, shared: Path, how: str) -> None:
    answer, problem = HOSTILE[how]
    began = time.monotonic()
    with answering(shared, answer):
        found = asked(workspace, shared)
    assert problem in found.problem, found
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("name", ["end.json", "work", "room", ".furnished", "junit.xml", "x\x1b[2J"])
def test_a_folder_that_somebody_was_in_before_is_not_used(workspace: Path, shared: Path, name: str) -> None:
    (shared / name).symlink_to(workspace)
    with pytest.raises(Unavailable, match="not empty") as refused:
        asked(workspace, shared)
    assert "\x1b" not in str(refused.value)
    assert sorted(path.name for path in workspace.iterdir()) == ["checks", "tonight"]


def test_a_link_among_the_checks_is_refused_before_anything_is_shared(workspace: Path, shared: Path) -> None:
    (workspace / "checks" / "test_link.py").symlink_to("/etc/passwd")
    with pytest.raises(UsageError, match="symbolic link"):
        asked(workspace, shared)
    assert not (shared / "room").exists()


def test_checks_take_less_memory_than_their_container_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "MEMORY", tmp_path / "memory.max")
    assert apart._within(100) == 100
    (tmp_path / "memory.max").write_text("max\n")
    assert apart._within(100) == 100
    (tmp_path / "memory.max").write_text("80\n")
    assert apart._within(100) == 70


def test_the_container_loads_no_heavy_library() -> None:
    heavy = ("torch", "diffusers", "numpy", "pandas", "pyarrow", "scipy", "pytest", "dvc", "fsspec")
    code = f"import sys, cl_steps.checks.apart; sys.exit(any(name in sys.modules for name in {heavy!r}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
