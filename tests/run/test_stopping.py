"""SIGTERM to a real `retain step`: it ends at once wherever it is, has stored nothing, and can be run again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cl_steps.config import RunSpec
from cl_steps.repository.git import text
from cl_steps.repository.line import Line
from cl_steps.repository.run_branch import open_run, read_run
from cl_steps.run.stopping import GRACE_SECONDS
from tests.forks import Fork

STEP = """
import sys, time, threading
from pathlib import Path
from cl_steps.__main__ import main
from cl_steps.operations import play
from cl_steps.pipeline import INGEST
from tests.lines.small import fake_stage

def learn(context):
    if sys.argv[1] in ("run", "thread", "import"):
        if sys.argv[1] == "thread":
            threading.Thread(target=time.sleep, args=(60,)).start()
        Path(sys.argv[2]).touch()
        try:
            time.sleep(60)
        except BaseException as error:
            raise RuntimeError("half imported") if sys.argv[1] == "import" else error
    return fake_stage(INGEST, "ok")(context)

play.load = lambda chosen: learn
sys.exit(main(["step", "ingest", "--workspace", sys.argv[3], "--run", "r-1"]))
"""
GIT = """#!/bin/sh
case " $* " in *" {hang} "*) touch {marker}; exec sleep 60;; esac
exec {git} "$@"
"""


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def started(line: Line, tmp_path: Path, where: str) -> Fork:
    """A step that hangs in one place: in a command of Git, or in its own work."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    own = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
    git = tmp_path / "bin" / "git"
    git.write_text(GIT.format(hang=where, marker=tmp_path / "there", git=own))
    git.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{git.parent}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": str(tmp_path / "scratch"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "RETAIN_STORE_URL": line.store,
        "RETAIN_LANDING": line.landing,
    }
    return Fork(["-c", STEP, where, tmp_path / "there", line.git], env=env)


@pytest.mark.parametrize("where", ["clone", "run", "push", "thread", "import"])
def test_sigterm_ends_a_step_at_once_with_nothing_half_written(
    line: Line, tmp_path: Path, scratch: Path, where: str
) -> None:
    open_run(line, RunSpec(id="r-1"))
    before = text(None, "ls-remote", line.git)
    process = started(line, tmp_path, where)
    while not (tmp_path / "there").exists():
        assert process.poll() is None
        time.sleep(0.02)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    # All that hangs here hangs for 60 s.
    assert time.monotonic() - asked < GRACE_SECONDS + 20
    assert text(None, "ls-remote", line.git) == before
    if where != "thread":
        assert list(scratch.iterdir()) == []
    if where == "push":
        assert started(line, tmp_path, "nowhere").wait(60) == 0
        assert read_run(line, "r-1").reports["ingest"].status == "done"
