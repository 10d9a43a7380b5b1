"""OpenLineage hears of every step, whatever becomes of it, and no step ever suffers from telling."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cl_steps.config import RunSpec
from cl_steps.errors import StaleRun, UsageError
from cl_steps.formats import openlineage
from cl_steps.operations import play as steps
from cl_steps.pipeline import STAGES, STEPS
from cl_steps.repository.line import Line
from cl_steps.repository.run_branch import open_run, read_run
from cl_steps.store.pointers import lock_outs
from tests.formats.listening import HOSTILE, conform, of, quiet_line, told_to


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A line whose stages write a few bytes, and nobody who wants to hear of them."""
    return quiet_line(tmp_path, monkeypatch)


@pytest.fixture
def events(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """What the file transport wrote so far."""
    return told_to(tmp_path / "events.jsonl", monkeypatch)


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
        "import sys, time; from cl_steps.operations import play; from cl_steps.__main__ import main\n"
        "def wait(context):\n    print('here', flush=True); time.sleep(60)\n"
        "play.load = lambda _: wait; sys.exit(main(sys.argv[1:]))"
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
