"""MLflow for tests: a fake that knows the requests that we make, and the real one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import URLError
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest

API, PROXY = "/api/2.0/mlflow/", "/api/2.0/mlflow-artifacts/artifacts/"
START_SECONDS = 120


class Fake(ThreadingHTTPServer):
    """Keeps what it is told; `status` other than 200 is its answer to everything."""

    daemon_threads = True

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.models: dict[str, dict[str, str]] = {}
        self.versions: list[dict[str, Any]] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.artifacts: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.authorizations: set[str] = set()
        self.status, self.scheme = 200, "mlflow-artifacts:/"
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, path: str, said: dict[str, Any]) -> dict[str, Any] | None:
        """What the real one would say; None: there is no such thing."""
        calls: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
            "experiments/get-by-name": lambda b: self._experiment(b["experiment_name"]),
            "experiments/create": lambda b: {"experiment_id": self.experiments.setdefault(b["name"], "1")},
            "registered-models/get": lambda b: {} if b["name"] in self.models else None,
            "registered-models/create": lambda b: {"m": self.models.setdefault(b["name"], {})},
            "registered-models/alias": lambda b: self.models[b["name"]].update({b["alias"]: b["version"]}) or {},
            "model-versions/search": self._search_versions,
            "model-versions/create": self._create_version,
            "runs/search": lambda b: {"runs": [r for r in self.runs.values() if _has(r["tags"], b["filter"])]},
            "runs/create": self._create_run,
            "runs/log-batch": self._log,
            "runs/update": lambda b: self.runs[b["run_id"]].update(status=b["status"]) or {},
        }
        return calls[path](said)

    def _experiment(self, name: str) -> dict[str, Any] | None:
        found = self.experiments.get(name)
        return {"experiment": {"experiment_id": found}} if found else None

    def _search_versions(self, body: dict[str, Any]) -> dict[str, Any]:
        # One a page: what follows must be asked for.
        at = int(body.get("page_token") or 0)
        more = {"next_page_token": str(at + 1)} if at + 1 < len(self.versions) else {}
        return {"model_versions": self.versions[at : at + 1], **more}

    def _create_version(self, body: dict[str, Any]) -> dict[str, Any]:
        self.versions.append({**body, "version": str(len(self.versions) + 1)})
        return {"model_version": self.versions[-1]}

    def _create_run(self, body: dict[str, Any]) -> dict[str, Any]:
        identity = f"run{len(self.runs)}"
        info = {"run_id": identity, "artifact_uri": f"{self.scheme}1/{identity}/artifacts"}
        self.runs[identity] = {"info": info, "params": {}, "metrics": {}, "tags": _plain(body["tags"])}
        return {"run": self.runs[identity]}

    def _log(self, body: dict[str, Any]) -> dict[str, Any]:
        for key in ("params", "metrics", "tags"):
            self.runs[body["run_id"]][key] |= _plain(body.get(key, []))
        return {}


def _plain(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    return {pair["key"]: pair["value"] for pair in pairs}


def _has(tags: dict[str, str], wanted: str) -> bool:
    key, value = (part.strip("`'") for part in wanted.removeprefix("tags.").split(" = "))
    return tags.get(key) == value


class Handler(BaseHTTPRequestHandler):
    server: Fake

    def handle_request(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        split = urlsplit(self.path)
        self.server.asked.append((self.command, split.path))
        self.server.authorizations.add(self.headers.get("Authorization", ""))
        if self.server.status != 200:
            self._reply(self.server.status, {"error_code": "X", "message": "no\nway"})
        elif split.path.startswith(PROXY):
            self.server.artifacts[split.path.removeprefix(PROXY)] = content
            self._reply(200, {})
        else:
            query = {key: values[0] for key, values in parse_qs(split.query).items()}
            found = self.server.answer(split.path.removeprefix(API), json.loads(content) if content else query)
            missing = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}
            self._reply(404 if found is None else 200, missing if found is None else found)

    do_GET = do_POST = do_PUT = handle_request  # noqa: N815

    def _reply(self, status: int, document: dict[str, Any]) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "http://127.0.0.1:9/")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def fake() -> Iterator[Fake]:
    """A fake that serves until the block ends."""
    server = Fake()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def program(folder: Path) -> Path:
    """MLflow's own command: RETAIN_TEST_MLFLOW, or on the PATH, or installed into `folder`; skips without."""
    known = os.environ.get("RETAIN_TEST_MLFLOW") or shutil.which("mlflow")
    if known:
        return Path(known)
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    python = folder / "bin" / "python"
    make = [uv, "venv", "-q", str(folder)] if uv else [sys.executable, "-m", "venv", str(folder)]
    add = [uv, "pip", "install", "-q", "--python", str(python)] if uv else [str(python), "-m", "pip", "install", "-q"]
    for words in (make, [*add, "mlflow"]):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"MLflow cannot be installed here (set RETAIN_TEST_MLFLOW): {done.stderr.strip()[-200:]}")
    return folder / "bin" / "mlflow"


@contextmanager
def real(folder: Path) -> Iterator[str]:
    """The URL of a real server whose database and artifacts are in `folder`."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(program(folder / "venv")), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    places = [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*words, *places], cwd=folder, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process, folder / "log")
        yield url
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urlopen(f"{url}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"MLflow did not start: {log.read_text()[-2000:]}")
