"""Airflow as `make airflow` starts it, for a trial: started, killed, started again, and asked through its REST API."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil

FINAL = ("success", "failed")


class Airflow:
    """One Airflow with its home in `folder/.retain/airflow` and the lines of `folder/.retain/lines.yaml`."""

    def __init__(self, folder: Path, port: int, env: Mapping[str, str]) -> None:
        self._folder, self._port, self._env = folder, port, dict(env)
        self._process: subprocess.Popen[bytes] | None = None
        self._token = ""

    def start(self) -> None:
        """Start all its parts and wait until they are healthy."""
        self._folder.mkdir(parents=True, exist_ok=True)
        before = len(self._words())
        with (self._folder / "serve.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cl_steps.orchestration.serve", str(self._folder), "--port", str(self._port)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._env},
                start_new_session=True,
            )
        end = time.monotonic() + 300
        while "Ctrl+C" not in self._words()[before:]:
            assert self._process.poll() is None, self._words()[-3000:]
            assert time.monotonic() < end, "Airflow did not come up"
            time.sleep(1)
        self._log_in()

    def kill(self) -> None:
        """End all its parts at once, as a power cut would: nobody is asked, nothing is told."""
        assert self._process
        family = [*psutil.Process(self._process.pid).children(recursive=True), psutil.Process(self._process.pid)]
        for process in family:
            process.kill()
        psutil.wait_procs(family, timeout=20)

    def stop(self) -> None:
        """End it as Ctrl+C does."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(120)

    def wait_for_dag(self, line: str) -> None:
        """Wait until a line's DAG is there, and let it run."""
        end = time.monotonic() + 120
        while True:
            with suppress(HTTPError):
                self.ask("PATCH", f"/api/v2/dags/retain_{line}", {"is_paused": False})
                return
            assert time.monotonic() < end, f"there is no DAG of {line}: {self.ask('GET', '/api/v2/importErrors')}"
            time.sleep(1)

    def trigger(self, line: str, /, **form: Any) -> str:
        """Trigger a run as ops would; returns Airflow's id of it."""
        body = {"logical_date": None, "conf": form}
        return str(self.ask("POST", f"/api/v2/dags/retain_{line}/dagRuns", body)["dag_run_id"])

    def wait(self, line: str, run: str, seconds: float = 1800) -> str:
        """How a DAG run ended."""
        end = time.monotonic() + seconds
        while (state := self.state(line, run)) not in FINAL:
            assert time.monotonic() < end, f"{run} of {line} is {state}: {self.tasks(line, run)}"
            time.sleep(2)
        return state

    def state(self, line: str, run: str) -> str:
        """The state of a DAG run."""
        return str(self.ask("GET", f"/api/v2/dags/retain_{line}/dagRuns/{run}")["state"])

    def tasks(self, line: str, run: str) -> dict[str, tuple[str, int]]:
        """Task to its state and the number of its tries."""
        found = self.ask("GET", f"/api/v2/dags/retain_{line}/dagRuns/{run}/taskInstances")["task_instances"]
        return {task["task_id"]: (str(task["state"]), int(task["try_number"])) for task in found}

    def log(self, line: str, run: str, task: str, number: int) -> str:
        """What a try of a task wrote."""
        path = f"/api/v2/dags/retain_{line}/dagRuns/{run}/taskInstances/{task}/logs/{number}?full_content=true"
        return json.dumps(self.ask("GET", path)["content"])

    def answer(self, line: str, run: str, choice: str, comment: str) -> None:
        """Answer the question of a held run."""
        path = f"/api/v2/dags/retain_{line}/dagRuns/{run}/taskInstances/ask/-1/hitlDetails"
        self.ask("PATCH", path, {"chosen_options": [choice], "params_input": {"comment": comment}})

    def asset_events(self) -> list[dict[str, Any]]:
        """Every event of every asset."""
        return list(self.ask("GET", "/api/v2/assets/events?limit=100")["asset_events"])

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One request; raises HTTPError."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        data = json.dumps(body).encode() if body is not None else None
        request = Request(f"http://127.0.0.1:{self._port}{path}", data=data, method=method, headers=headers)
        with urlopen(request, timeout=60) as answer:
            return dict(json.load(answer))

    def _log_in(self) -> None:
        passwords = self._folder / ".retain" / "airflow" / "simple_auth_manager_passwords.json.generated"
        word = json.loads(passwords.read_text(encoding="utf-8"))["admin"]
        self._token = ""
        self._token = str(self.ask("POST", "/auth/token", {"username": "admin", "password": word})["access_token"])

    def _words(self) -> str:
        log = self._folder / "serve.log"
        return log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
