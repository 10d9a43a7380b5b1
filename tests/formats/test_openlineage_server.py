"""Who hears of a step: a server, a file, or nobody, as the deployment says; and what trouble with it costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from cl_steps.commands.night import _cut_network
from cl_steps.config import RunSpec
from cl_steps.formats import openlineage
from cl_steps.operations import play as steps
from cl_steps.pipeline import PROMOTE
from cl_steps.repository.line import Line
from cl_steps.repository.run_branch import open_run
from tests.formats.listening import conform, quiet_line, told_to


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A line whose stages write a few bytes, and nobody who wants to hear of them."""
    return quiet_line(tmp_path, monkeypatch)


@pytest.fixture
def events(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """What the file transport wrote so far."""
    return told_to(tmp_path / "events.jsonl", monkeypatch)


class Recorder(ThreadingHTTPServer):
    """A server that keeps what is posted, answers with `status`, after `seconds`."""

    daemon_threads = True

    def __init__(self) -> None:
        self.posted: list[tuple[str, str, dict[str, Any]]] = []
        self.status, self.seconds = 201, 0.0
        super().__init__(("127.0.0.1", 0), Receiver)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Receiver(BaseHTTPRequestHandler):
    server: Recorder

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.posted.append((self.path, self.headers.get("Authorization", ""), content))
        time.sleep(self.server.seconds)
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Recorder]:
    recorder = Recorder()
    thread = Thread(target=recorder.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield recorder
    recorder.shutdown()
    thread.join()
    recorder.server_close()


def test_a_server_hears_of_it(line: Line, server: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", server.url)
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "key")
    open_run(line, RunSpec(id="r-1"))
    steps.run_step(line, "r-1", "ingest")
    assert [(path, key) for path, key, _ in server.posted] == [("/api/v1/lineage", "Bearer key")] * 3
    for _, _, event in server.posted:
        conform(event)
    assert [e["job"]["name"] for _, _, e in server.posted] == ["night", "ingest", "ingest"]


@pytest.mark.parametrize("trouble", ["refused", "error", "slow", "settings", "type"])
def test_trouble_costs_a_line_of_log_and_a_bounded_time(
    line: Line, server: Recorder, trouble: str, tmp_path: Path, monkeypatch: Any, capfd: Any
) -> None:
    monkeypatch.setattr(openlineage, "BUDGET_SECONDS", 0.5)
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:9" if trouble == "refused" else server.url)
    if trouble == "error":
        server.status = 400
    elif trouble == "slow":
        server.seconds = 3
    elif trouble == "settings":
        monkeypatch.setenv("OPENLINEAGE_CONFIG", str(tmp_path / "none.yml"))
    elif trouble == "type":
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "carrier_pigeon")
    open_run(line, RunSpec(id="r-1"))
    with openlineage.observed(line, "r-1", PROMOTE):
        pass
    capfd.readouterr()
    began = time.monotonic()
    with openlineage.observed(line, "r-1", PROMOTE):
        pass
    assert time.monotonic() - began < 1.5
    said = capfd.readouterr().err
    assert said.count("\n") == 1, said
    assert "OpenLineage" in said
    assert steps.run_step(line, "r-1", "ingest").startswith("ok")


def test_nothing_configured_costs_nothing(line: Line) -> None:
    code = (
        "import sys; from cl_steps.commands import night; from cl_steps.operations import play\n"
        "from cl_steps.formats.openlineage import observed\nwith observed(None, 'r', play.STEPS['ingest']): pass\n"
        "assert not {'openlineage', 'requests', 'pyarrow'} & set(sys.modules)"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENLINEAGE")}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
    assert not openlineage.configured({"OPENLINEAGE_URL": "http://x", "OPENLINEAGE_DISABLED": "True"})


def test_offline_uses_files_and_no_server(
    line: Line, server: Recorder, events: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv(openlineage.OFFLINE, "")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    _cut_network(line)
    open_run(line, RunSpec(id="r-1"))
    steps.run_step(line, "r-1", "ingest")
    assert len(events()) == 3
    for name in list(os.environ):
        if name.startswith("OPENLINEAGE"):
            del os.environ[name]
    os.environ["OPENLINEAGE_URL"] = server.url
    steps.run_step(line, "r-1", "drift")
    assert server.posted == []
    assert "no network" in capsys.readouterr().err


def test_a_workspace_cannot_say_who_hears_of_it(
    line: Line, server: Recorder, events: Callable[[], list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client would take `openlineage.yml` of the folder that a person works in, environment variables and all."""
    settings = {"transport": {"url": server.url, "type": "http"}, "facets": {"environment_variables": ["HOME"]}}
    (tmp_path / "openlineage.yml").write_text(json.dumps(settings))
    monkeypatch.chdir(tmp_path)
    open_run(line, RunSpec(id="r-1"))
    steps.run_step(line, "r-1", "ingest")
    assert server.posted == []
    assert "environmentVariables" not in json.dumps(events())
