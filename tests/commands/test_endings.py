"""However a night ends too early: one sentence, the run closed, and how to go on."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cl_steps.errors import Unavailable
from cl_steps.operations import play as step_command
from cl_steps.pipeline import CLOSE, INGEST, Step
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from tests.commands.conftest import Cli
from tests.lines.small import fake_stage, make_workspace

HANGING = """
import sys, time
from pathlib import Path
from cl_steps.__main__ import main
from cl_steps.operations import play

def learn(context):
    Path(sys.argv[1]).touch()
    time.sleep(60)

play.load = lambda chosen: learn
sys.exit(main(["night", sys.argv[2], "--offline"]))
"""


@pytest.fixture
def small(tmp_path: Path) -> Line:
    return make_workspace(tmp_path / "line")


def stages(monkeypatch: pytest.MonkeyPatch, found: Callable[[Step], Any]) -> None:
    real = step_command.load
    monkeypatch.setattr(step_command, "load", lambda chosen: found(chosen) or real(chosen))


def outcomes(line: Line) -> list[tuple[str, str]]:
    with reading(line.git) as main:
        return [(event.outcome, event.why) for event in main.ledger().runs.values()]


def deep(*_: object) -> None:
    deep()


def hostile(*_: object) -> None:
    Path(os.fsdecode(b"\xff")).name.encode()


def full(*_: object) -> None:
    db = sqlite3.connect(":memory:")
    db.execute("PRAGMA max_page_count = 1")
    db.execute("CREATE TABLE t (x)")


def away(*_: object) -> None:
    raise Unavailable("the store is away")


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        (deep, 1, "RecursionError"),
        (hostile, 1, "UnicodeEncodeError"),
        (full, 6, "no room is left"),
        (away, 6, "the store is away"),
    ],
)
def test_whatever_ends_a_night_its_run_is_closed(
    small: Line, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, end: Any, code: int, words: str
) -> None:
    stages(monkeypatch, lambda step: {"ingest": fake_stage(INGEST, "ok"), "drift": end}.get(step.name))
    found, out, err = cli("night", tmp_path / "line")
    *_, last = err.splitlines()
    assert (found, out, words in last, "Traceback" in err) == (code, "", True, False)
    assert outcomes(small) == [("failed", "it stopped after ingest: see the log of the step that follows")]
    if end is not away:
        [kept] = (tmp_path / "line" / ".retain").glob("retain-error-*.txt")
        assert str(kept) in last
        assert f"`retain night {tmp_path / 'line'} --run " in last


def test_an_error_while_closing_hides_nothing(
    small: Line, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(step: Step) -> Any:
        return away if step is CLOSE else deep

    stages(monkeypatch, found)
    code, _, err = cli("night", tmp_path / "line")
    assert code == 1
    assert "RecursionError" in err.splitlines()[-1]
    assert "close: the store is away" in err
    assert outcomes(small) == []


def test_ctrl_c_says_what_really_goes_on(
    small: Line, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    stages(monkeypatch, lambda step: stop)
    code, _, err = cli("night", tmp_path / "line", "--no-promote", "--offline")
    [command] = re.findall(r"interrupted; `retain (.*)` goes on", err)
    assert code == 130
    stages(monkeypatch, lambda step: fake_stage(step, "too_few") if step is INGEST else None)
    again = cli(*command.split(), "--until", "ingest")
    assert (again[0], "stopped after ingest" in again[1]) == (0, True)
    with reading(small.git) as main:
        assert len([name for name in remote_runs(main.url) if name.startswith("refs/heads/runs/")]) == 1


def remote_runs(url: str) -> list[str]:
    done = subprocess.run(["git", "ls-remote", url], capture_output=True, text=True, check=True)
    return [line.split()[1] for line in done.stdout.splitlines()]


def test_ctrl_c_elsewhere(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cl_steps.commands.verify.verify", stop)
    code, out, err = cli("verify", "--json", "--dir", tmp_path)
    assert (code, out) == (130, "")
    assert "the same command" in err


def test_sigterm_to_a_night_says_so_and_leaves_nothing_behind(small: Line, tmp_path: Path) -> None:
    scratch, there = tmp_path / "scratch", tmp_path / "there"
    scratch.mkdir()
    env = {**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, "-c", HANGING, str(there), str(tmp_path / "line")]
    with subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True) as process:
        while not there.exists():
            assert process.poll() is None
            time.sleep(0.02)
        assert list(scratch.iterdir()) != []
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert re.search(
        r"retain night: asked to stop\nretain night: .*`retain night \S+ --run \S+ --offline` goes on", err
    )
    assert list(scratch.iterdir()) == []
    assert outcomes(small) == [], "the run goes on: it is not closed"
