"""The same steps without a network, under DVC, and killed on the way."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from cl_steps.__main__ import main
from cl_steps.config import RunSpec
from cl_steps.demo.nights import write_night
from cl_steps.pipeline import STEPS
from cl_steps.repository.line import local
from cl_steps.repository.mainline import reading
from cl_steps.repository.run_branch import open_run, read_run
from cl_steps.store.pointers import lock_outs
from tests.forks import Fork, run

NO_NETWORK = """
import socket, sys
from tests.lasting import documents
def refuse(*_):
    raise OSError("this process has no network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from cl_steps.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def retain(*words: object) -> list[str]:
    return [sys.executable, "-m", "cl_steps", *(str(word) for word in words)]


def test_a_night_without_a_network(line: Path) -> None:
    """In a namespace without any network where the machine allows one; with sockets that refuse in any case."""
    alone = ["unshare", "--map-root-user", "--net"]
    can = shutil.which("unshare") and subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0
    words = [sys.executable, "-c", NO_NETWORK, "night", str(line), "--offline", "--force", "--reason", "x"]
    words = [*alone, *words] if can else words
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "v2" in done.stdout


def test_offline_refuses_a_line_that_lives_elsewhere(line: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, "RETAIN_STORE_URL": "s3://bucket/line"}
    words = retain("night", "https://example.org/line.git", "--offline")
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert "--offline" in done.stderr


def test_dvc_runs_the_same_stages(line: Path, tmp_path: Path) -> None:
    folder = tmp_path / "line"
    shutil.copytree(line, folder)
    local(folder).save(folder)
    tools = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}

    def dvc(*words: str) -> str:
        command = [f"{tools}/dvc", *words]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "evaluate" in dvc("dag")
    # Whatever strangers called their files: DVC reads none of their names.
    for name in (b"\xff\xfe.png", b"x.dvc", b".dvcignore", b"\xfd/dvc.yaml"):
        path = folder / "landing" / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\xff[[")
    (folder / "landing" / "out.png").symlink_to("/etc/hostname")
    os.mkfifo(folder / "landing" / "pipe.png")
    dvc("pull", "-R", "state", "data")
    dvc("repro")
    assert "ingest.json" in dvc("metrics", "show")
    again = dvc("repro")
    assert "didn't change" in again or "up to date" in again


def test_a_step_killed_anywhere_and_tried_again_ends_the_same(line: Path, tmp_path: Path) -> None:
    write_night(line / "landing" / "more", 1, 7)
    ends: list[object] = []
    took: dict[str, float] = {}
    for name in ("whole", "killed"):
        folder = tmp_path / name / "line"
        shutil.copytree(line, folder)
        local(folder).save(folder)
        open_run(local(folder), RunSpec(id="2026-01-01-aaaa", force=True, reason="x"))
        for step in STEPS:
            words = ("step", step, "--workspace", str(folder), "--run", "2026-01-01-aaaa")
            if name == "whole":
                began = time.monotonic()
                assert main(words) == 0
                took[step] = time.monotonic() - began
            else:
                kill_on_the_way(words, random.Random(step).uniform(0.05, 0.6) * took[step])
                done = run(["-m", "cl_steps", *words])
                assert done.returncode == 0, done.stderr
        state = read_run(local(folder), "2026-01-01-aaaa")
        digests = {path: out["md5"] for path, out in lock_outs(state.lock).items()}
        with reading(local(folder).git) as found:
            assert found.ledger().outcome("2026-01-01-aaaa") == "promoted"
            ends.append((digests, found.tree("state"), len(found.records()), len(found.ledger().runs)))
    assert ends[0] == ends[1]


def kill_on_the_way(words: Sequence[str], seconds: float) -> None:
    process = Fork(["-m", "cl_steps", *words], session=True)
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
