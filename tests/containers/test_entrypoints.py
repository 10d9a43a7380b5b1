"""The entry points, run with a fake `retain` and a fake `airflow` on the path."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

CONTAINERS = Path(__file__).parents[2] / "containers"
PLACES = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME", "DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "MPLCONFIGDIR")
ECHO = '#!/bin/sh\nfor word in "$@"; do echo "[$word]"; done\nexit 4\n'
WAITING = "#!/bin/sh\ntrap 'echo caught; exit 7' TERM\necho ready\nwhile :; do sleep 0.05; done\n"


def surroundings(folder: Path, name: str, script: str) -> dict[str, str]:
    fake = folder / "bin" / name
    fake.parent.mkdir()
    fake.write_text(script)
    fake.chmod(0o755)
    places = {place: str(folder / "scratch" / place.lower()) for place in PLACES}
    return {"PATH": f"{fake.parent}:{os.environ['PATH']}", **places}


def called(script: str, args: list[str], env: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run([CONTAINERS / script, *args], env=env, text=True, capture_output=True, check=False)
    return done.returncode, done.stdout


def wait_until(done: Path, *, gone: bool) -> None:
    for _ in range(200):
        if done.exists() != gone:
            return
        time.sleep(0.05)
    raise AssertionError(f"{done} did not change")


def test_the_entry_point_makes_its_folders_and_hands_over(tmp_path: Path) -> None:
    env = surroundings(tmp_path, "retain", ECHO)
    assert called("entrypoint", ["step", "two words", "$HOME"], env) == (4, "[step]\n[two words]\n[$HOME]\n")
    assert all(Path(env[place]).is_dir() for place in PLACES)


def test_sigterm_reaches_the_command_itself(tmp_path: Path) -> None:
    env = surroundings(tmp_path, "retain", WAITING)
    with subprocess.Popen([CONTAINERS / "entrypoint", "step"], env=env, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "caught\n"
    assert process.returncode == 7


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["airflow", "db", "migrate"], "[db]\n[migrate]\n"),
        (["scheduler"], "[scheduler]\n"),
        (["bash", "-c", "exec airflow triggerer"], "[triggerer]\n"),
        (["users", "list"], "[users]\n[list]\n"),
        ([], ""),
    ],
)
def test_airflow_is_called_as_its_official_image_is(tmp_path: Path, args: list[str], said: str) -> None:
    env = surroundings(tmp_path, "airflow", ECHO)
    assert called("airflow-entrypoint", args, env) == (4, said)


def test_old_logs_go_and_new_ones_stay(tmp_path: Path) -> None:
    old, new = tmp_path / "logs/a/old.log", tmp_path / "logs/b/new.log"
    for log in (old, new):
        log.parent.mkdir(parents=True)
        log.write_text("said")
    before = time.time() - 5 * 86_400
    os.utime(old, (before, before))
    env = {"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__LOG_RETENTION_DAYS": "3"}
    with subprocess.Popen([CONTAINERS / "clean-logs"], env=env) as process:
        wait_until(old.parent, gone=True)
        process.terminate()
        assert process.wait(timeout=10) == 0
    assert new.is_file()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_scripts_are_clean() -> None:
    names = ("build", "entrypoint", "airflow-entrypoint", "clean-logs", "with-settings", "git/pre-receive")
    scripts = [CONTAINERS / name for name in names]
    done = subprocess.run(["shellcheck", *scripts], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
