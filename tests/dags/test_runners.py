"""A step as a process: what it sees, what it says, what its end means, and that it ends."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from cl_steps.errors import UsageError
from cl_steps.orchestration import runners
from cl_steps.orchestration.pods.profiles import Profile
from cl_steps.orchestration.registry import Entry
from cl_steps.orchestration.runners import Child, environment, runner_of
from cl_steps.orchestration.settling import IntegrityFault, settle, settled
from cl_steps.pipeline import DRIFT, EVALUATE, UPDATE


@pytest.fixture
def python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children are plain Python instead of the package."""
    monkeypatch.setattr(runners, "program", lambda: [sys.executable, "-c"])


def run(code: str, **settings: str) -> tuple[int, str]:
    return Child([code], environment(os.environ, (), settings)).run()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (2, AirflowFailException),
        (3, AirflowFailException),
        (5, IntegrityFault),
        (4, AirflowSkipException),
        (1, AirflowException),
        (6, AirflowException),
        (-9, AirflowException),
    ],
)
def test_what_an_exit_code_means(code: int, error: type[Exception]) -> None:
    with pytest.raises(error, match="the reason") as caught:
        settle(code, "the reason")
    assert type(caught.value) is error


def test_zero_is_well() -> None:
    settle(0, "")


def test_a_light_task_fails_by_the_same_rule() -> None:
    with pytest.raises(AirflowFailException, match="wrong"), settled():
        raise UsageError("wrong")


def test_the_environment_is_a_list_of_names() -> None:
    source = {"PATH": "/bin", "AIRFLOW__CORE__FERNET_KEY": "secret", "AWS_SECRET_ACCESS_KEY": "s", "AWS_PROFILE": "p"}
    found = environment(source, ("AWS_PROFILE",), {"RETAIN_WORK": "/w"})
    assert {name for name in found if name in source} == {"PATH", "AWS_PROFILE"}
    assert found["RETAIN_WORK"] == "/w"


@pytest.mark.usefixtures("python")
def test_a_secret_does_not_reach_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "hush")
    monkeypatch.setenv("RETAIN_SIGNING_KEY", "hush")
    assert run("import os; print('hush' in os.environ.values(), 'PATH' in os.environ)") == (0, "False True")


@pytest.mark.usefixtures("python")
def test_lines_come_as_they_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, str]] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: seen.append((time.monotonic(), record.getMessage())))
    monkeypatch.setattr(runners, "STEP_LOG", logging.Logger("retain.step"))
    runners.STEP_LOG.addHandler(handler)
    code = "import sys, time; print('one'); time.sleep(0.3); print('t\\u00f6 %s', file=sys.stderr); sys.exit(3)"
    assert run(code, PYTHONIOENCODING="utf-8") == (3, "tö %s")
    assert [line for _, line in seen] == ["one", "tö %s"]
    assert seen[1][0] - seen[0][0] > 0.1


FAMILY = "import subprocess, sys, time; subprocess.Popen(['sleep', '60']); print('up', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {FAMILY}"


@pytest.mark.usefixtures("python")
@pytest.mark.parametrize(("code", "number"), [(FAMILY, signal.SIGTERM), (STUBBORN, signal.SIGKILL)])
def test_the_end_reaches_the_whole_group(monkeypatch: pytest.MonkeyPatch, code: str, number: int) -> None:
    monkeypatch.setattr(runners, "GRACE_SECONDS", 0.3)
    up = threading.Event()
    monkeypatch.setattr(runners.STEP_LOG, "info", lambda *_: up.set())
    child = Child([code], environment(os.environ, (), {}))
    killer = threading.Thread(target=lambda: (up.wait(20), child.end()))
    killer.start()
    # The pipe closes only when the grandchild, which holds it too, is gone.
    assert child.run()[0] == -number
    killer.join()


def test_the_task_is_the_command_of_a_container() -> None:
    entry = Entry(name="a", workspace="/w", work="/x", environment=("AWS_PROFILE",))
    task = runner_of(entry).task(DRIFT, "2026-01-01-abc", retries=1)
    arguments: Sequence[str] = task.arguments
    assert list(arguments) == ["step", "drift", "--workspace", "/w", "--run", "2026-01-01-abc"]
    assert runners.program() == [sys.executable, "-m", "cl_steps"]
    assert (task.task_id, task.retries, task.settings, task.names) == (
        "drift", 1, {"RETAIN_WORK": "/x"}, ("AWS_PROFILE",)
    )  # fmt: skip


def test_gpu_steps_wait_for_their_pool_and_others_do_not() -> None:
    entry = Entry(name="a", workspace="/w", profile=Profile(runner="local", pool="gpus"))
    found = {step.name: runner_of(entry).task(step, "r").pool for step in (DRIFT, UPDATE, EVALUATE)}
    assert found == {"drift": "default_pool", "update": "gpus", "evaluate": "gpus"}
