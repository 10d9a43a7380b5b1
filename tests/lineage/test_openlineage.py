"""OpenLineage hears of every step, whatever becomes of it, and no step ever suffers from telling."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jsonschema
import pytest
from openlineage.client import event_v2, facet_v2

import cl_steps.promote
from cl_steps.commands import step as steps
from cl_steps.commands.night import _cut_network
from cl_steps.config import RunSpec
from cl_steps.errors import StaleRun, UsageError
from cl_steps.lineage.formats import openlineage
from cl_steps.pipeline import PROMOTE, STAGES, STEPS, Step
from cl_steps.workspace.branch import open_run, read_run
from cl_steps.workspace.context import Context, StepReport
from cl_steps.workspace.line import Line
from cl_steps.workspace.store import lock_outs
from tests.workspace.conftest import GOOD, fake_stage, make_workspace

HOSTILE = "<script>secret</script> password=hunter2"
CHECK = {
    "slice": "old",
    "metric": "loss",
    "against": "champion",
    "kind": "non-inferiority",
    "units": 9,
    "estimate": 0.01,
    "lower": 0.0,
    "upper": 0.02,
    "margin": 0.05,
    "verdict": "pass",
    "note": HOSTILE,
}
FIGURES: Mapping[str, Mapping[str, Any]] = {
    "drift": {"slices": {"old": {"auc": 0.7, "p_value": 0.001, "drifted": True}}, "forced": HOSTILE},
    "gate": {"checks": [CHECK]},
}


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A line whose stages write a few bytes, and nobody who wants to hear of them."""
    return quiet_line(tmp_path, monkeypatch)


def quiet_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    for name in list(os.environ):
        if name.startswith("OPENLINEAGE") or name == openlineage.OFFLINE:
            monkeypatch.delenv(name)
    monkeypatch.setattr(cl_steps.promote, "_check_figures", lambda *_: None)
    monkeypatch.setattr(steps, "load", loaded(dict(GOOD)))
    return make_workspace(tmp_path / "line")


def loaded(verdicts: Mapping[str, str | None], real: Callable[[Step], Any] = steps.load) -> Callable[[Step], Any]:
    def load(chosen: Step) -> Any:
        if chosen not in STAGES:
            return real(chosen)

        def function(context: Context) -> StepReport:
            found = fake_stage(chosen, verdicts[chosen.name])(context)
            figures = {**found.figures, **FIGURES.get(chosen.name, {})}
            return StepReport(found.verdict, f"{found.why}: {HOSTILE}", figures)

        return function

    return load


@pytest.fixture
def events(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """What the file transport wrote so far."""
    return told_to(tmp_path / "events.jsonl", monkeypatch)


def told_to(path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "file")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__LOG_FILE_PATH", str(path))
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__APPEND", "true")
    return lambda: [json.loads(row) for row in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Line, list[dict[str, Any]]]:
    """A line after a whole night, and what was told of it."""
    place = tmp_path_factory.mktemp("night")
    with pytest.MonkeyPatch.context() as monkeypatch:
        line = quiet_line(place, monkeypatch)
        events = told_to(place / "events.jsonl", monkeypatch)
        open_run(line, RunSpec(id="r-1", reason=HOSTILE))
        for name in STEPS:
            steps.run_step(line, "r-1", name)
        return line, events()


def conform(event: dict[str, Any]) -> None:
    """The event is what the client's own classes, which are made from the specification, can hold."""
    named = {facet.__name__: facet for module in vars(facet_v2).values() for facet in _classes(module)}

    def facets(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
        made = {}
        for key, values in found.items():
            name = values["_schemaURL"].rpartition("/")[2]
            # The client itself adds its version as a tag.
            assert key == "tags" or values["_producer"].startswith("urn:retain:")
            plain = {k: v for k, v in values.items() if not k.startswith("_")}
            if name == "VersionFacet":
                schema = Path(openlineage.__file__).with_name("version_facet.json")
                jsonschema.validate({key: values}, json.loads(schema.read_text()))
            else:
                made[key] = named[name](**plain)
                assert made[key]._get_schema() == values["_schemaURL"]
        return made

    run, job = event["run"], event["job"]
    dataset = {"inputs": (event_v2.InputDataset, "inputFacets"), "outputs": (event_v2.OutputDataset, "outputFacets")}
    sides = {
        side: [
            kind(**{**found, "facets": facets(found.get("facets", {})), own: facets(found.get(own, {}))})
            for found in event.get(side, ())
        ]
        for side, (kind, own) in dataset.items()
    }
    made = event_v2.RunEvent(
        eventTime=event["eventTime"],
        producer=event["producer"],
        eventType=event_v2.RunState(event["eventType"]),
        run=event_v2.Run(run["runId"], facets(run["facets"])),
        job=event_v2.Job(job["namespace"], job["name"], facets(job["facets"])),
        **sides,
    )
    assert made.schemaURL == event["schemaURL"]


def _classes(module: object) -> list[type]:
    return [found for found in vars(module).values() if isinstance(found, type)] if hasattr(module, "__file__") else []


def of(events: list[dict[str, Any]], job: str) -> list[dict[str, Any]]:
    return [event for event in events if event["job"]["name"] == job]


def versions(side: list[dict[str, Any]]) -> dict[str, str]:
    return {found["name"]: found["facets"].get("version", {}).get("datasetVersion", "") for found in side}


def test_every_step_of_a_night_is_told(night: tuple[Line, list[dict[str, Any]]]) -> None:
    line, told = night
    for event in told:
        conform(event)
    assert {event["job"]["namespace"] for event in told} == {"my-line"}
    for name in (*STEPS, "night"):
        start, end = of(told, name)
        assert (start["eventType"], end["eventType"]) == ("START", "COMPLETE")
        assert start["run"]["runId"] == end["run"]["runId"]
    [parent] = {event["run"]["runId"] for event in of(told, "night")}
    parents = {event["run"]["facets"]["parent"]["run"]["runId"] for name in STEPS for event in of(told, name)}
    assert parents == {parent}
    outs = {path: out["md5"] for path, out in lock_outs(read_run(line, "r-1").lock).items()}
    for step in STAGES:
        end = of(told, step.name)[-1]
        made, took = versions(end["outputs"]), versions(end["inputs"])
        assert set(step.writes) < made.keys()
        assert took.keys() == set(step.reads)
        assert all(made.values())
        assert all(took.values())
        assert all(made[path] == outs[path] for path in step.writes if path in outs)
    assert "hunter2" not in json.dumps(told)


def test_a_promotion_tells_its_version_and_the_state_that_it_moved(night: tuple[Line, list[dict[str, Any]]]) -> None:
    end = of(night[1], "promote")[-1]
    facet = end["run"]["facets"]["retain_version"]
    assert (facet["version"], facet["parent"]) == ("v2", "v1")
    made, took = versions(end["outputs"]), versions(end["inputs"])
    assert made["model"] == "v2"
    assert made["state/adapter"] == took["tonight/candidate/adapter"] == facet["adapterMd5"]
    [kept] = of(night[1], "close")[-1]["outputs"]
    assert kept["name"] == "data/r-1"


def test_verdicts_are_assertions(night: tuple[Line, list[dict[str, Any]]]) -> None:
    def assertions(job: str, path: str) -> dict[str, dict[str, Any]]:
        [found] = [d for d in of(night[1], job)[-1]["inputs"] if d["name"] == path]
        return {a["name"]: a for a in found["inputFacets"]["dataQualityAssertions"]["assertions"]}

    gate, drift = assertions("gate", "tonight/evaluation/figures"), assertions("drift", "tonight/batch")
    assert (gate["gate"]["success"], gate["gate"]["actual"]) == (True, "promote")
    assert (gate["old/loss/champion"]["success"], gate["old/loss/champion"]["expected"]) == (True, "harm <= 0.05")
    assert (drift["drift"]["success"], drift["drift/old"]["success"]) == (True, False)


def test_a_failure_is_told_by_its_kind_alone(
    line: Line, events: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StaleRun(HOSTILE)

    open_run(line, RunSpec(id="r-1"))
    monkeypatch.setattr(steps, "load", lambda _: fail)
    with pytest.raises(StaleRun, match="secret"):
        steps.run_step(line, "r-1", "promote")
    with pytest.raises(StaleRun, match="secret"):
        steps.run_step(line, "r-1", "promote")
    told = events()
    for event in told:
        conform(event)
    assert [event["eventType"] for event in told] == ["START", "FAIL"] * 2
    assert len({event["run"]["runId"] for event in told}) == 2
    message = told[1]["run"]["facets"]["errorMessage"]["message"]
    assert message == "StaleRun: The champion changed since this run began."


def test_a_step_that_is_asked_to_stop_is_aborted(line: Line, tmp_path: Path) -> None:
    open_run(line, RunSpec(id="r-1"))
    code = (
        "import sys, time; from cl_steps.commands import step; from cl_steps.__main__ import main\n"
        "def wait(context):\n    print('here', flush=True); time.sleep(60)\n"
        "step.load = lambda _: wait; sys.exit(main(sys.argv[1:]))"
    )
    folder = Path(line.git).parents[1]
    settings = tmp_path / "openlineage.yaml"
    path = tmp_path / "told"
    settings.write_text(f"transport: {{type: file, log_file_path: {path}, append: true}}")
    words = [sys.executable, "-c", code, "step", "ingest", "--workspace", str(folder), "--run", "r-1"]
    environment = {**os.environ, "OPENLINEAGE_CONFIG": str(settings)}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    process.stdout.close()
    told = [json.loads(row) for row in path.read_text().splitlines()]
    assert [event["eventType"] for event in of(told, "ingest")] == ["START", "ABORT"]


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
        "import sys; from cl_steps.commands import night, step; from cl_steps.lineage.formats.openlineage import "
        "observed\nwith observed(None, 'r', step.STEPS['ingest']): pass\n"
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


def test_a_node_that_only_helps_tells_nothing(
    line: Line, events: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RETAIN_NODES": "2", "RETAIN_NODE_RANK": "1", "MASTER_ADDR": "x"}.items():
        monkeypatch.setenv(name, value)
    open_run(line, RunSpec(id="r-1"))
    steps.run_step(line, "r-1", "ingest")
    assert events() == []


def test_a_rehearsal_is_not_told(line: Line, events: Callable[[], list[Any]]) -> None:
    open_run(line, RunSpec(id="r-1"))
    with openlineage.rehearsal():
        steps.run_step(line, "r-1", "ingest")
    assert events() == []
    steps.run_step(line, "r-1", "ingest")
    assert len(events()) == 3


def test_an_unknown_run_is_the_steps_own_error(line: Line, events: Callable[[], list[Any]]) -> None:
    with pytest.raises(UsageError):
        steps.run_step(line, "NO RUN", "ingest")
