"""What a run took: beside the reports, added up over tries, and at last on main."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cl_steps.steps.promote
from cl_steps.config import Compute, RunSpec
from cl_steps.errors import Unavailable
from cl_steps.ledger.times import add_time, device_of, gpu_seconds, read_times
from cl_steps.pipeline import DRIFT, INGEST, UPDATE
from cl_steps.repository.git import text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from cl_steps.repository.run_branch import branch_of, open_run
from cl_steps.run import stage as execute
from cl_steps.run.context import Context, StepReport
from cl_steps.run.stage import run_stage
from cl_steps.steps import close, promote
from tests.lasting import documents
from tests.lines.small import GOOD, fake_stage, play

CPU, GPU = {"device": "cpu"}, {"device": "cuda", "name": "H200"}


def of_branch(line: Line, run: str) -> dict[str, dict[str, object]]:
    return dict(json.loads(text(Path(line.git), "show", f"{branch_of(run)}:reports/times.json")))


def test_a_step_that_runs_again_adds_to_what_it_took(tmp_path: Path) -> None:
    add_time(tmp_path, "update", 10.0, GPU, processes=2)
    add_time(tmp_path, "update", 5.0, GPU)
    add_time(tmp_path, "update", 100.0, CPU)
    add_time(tmp_path, "gate", 7.0, CPU)
    times = read_times(tmp_path)
    assert times["update"] == {"seconds": 115.0, "device": "cpu", "processes": 1, "gpu_seconds": 25.0}
    assert times["gate"] == {"seconds": 7.0, "device": "cpu", "processes": 1, "gpu_seconds": 0.0}
    assert gpu_seconds(times) == 25.0
    assert gpu_seconds({"update": {"gpu_seconds": 1.26}, "gate": {"gpu_seconds": 2}}) == 3.3
    assert read_times(tmp_path / "elsewhere") == {}


def test_the_device_is_the_one_that_the_step_computed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H200")
    assert device_of(UPDATE, Compute()) == device_of(DRIFT, Compute()) == GPU
    assert device_of(UPDATE, Compute(device="cpu")) == CPU
    assert device_of(INGEST, Compute()) == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(UPDATE, Compute()) == CPU


def test_times_are_stored_beside_reports_that_hold_none(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    play(line, "r-1", {"ingest": "ok", "drift": "drifted"})
    monkeypatch.setattr(execute, "device_of", lambda step, compute: GPU)
    forgotten: list[str] = []

    def learn(context: Context) -> StepReport:
        fake_stage(UPDATE, None)(context)
        return StepReport(processes=2, earlier_seconds=1000.0, once_stored=lambda: forgotten.append("checkpoints"))

    report = run_stage(line, "r-1", UPDATE, learn)
    assert "seconds" not in json.dumps(report.document())
    times = of_branch(line, "r-1")
    assert sorted(times) == ["drift", "ingest", "update"]
    assert times["ingest"]["device"] == "cpu"
    assert 1000 < float(str(times["update"]["seconds"])) < 1100
    assert 2000 < float(str(times["update"]["gpu_seconds"])) < 2200
    assert forgotten == ["checkpoints"]
    run_stage(line, "r-1", UPDATE, learn)
    assert of_branch(line, "r-1") == times


def test_checkpoints_stay_until_the_result_is_stored(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    open_run(line, RunSpec(id="r-1"))
    forgotten: list[str] = []

    def learn(context: Context) -> StepReport:
        fake_stage(INGEST, "ok")(context)
        return StepReport("ok", once_stored=lambda: forgotten.append("checkpoints"))

    def away(*_: object, **__: object) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(execute, "push_branch", away)
    with pytest.raises(Unavailable):
        run_stage(line, "r-1", INGEST, learn)
    assert forgotten == []


def test_a_node_that_helps_stores_nothing(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    open_run(line, RunSpec(id="r-1"))
    before = text(None, "ls-remote", line.git)
    for name, value in {"RETAIN_NODES": "2", "RETAIN_NODE_RANK": "1", "MASTER_ADDR": "node-0"}.items():
        monkeypatch.setenv(name, value)
    assert run_stage(line, "r-1", INGEST, fake_stage(INGEST, "ok")).status == "helped"
    assert text(None, "ls-remote", line.git) == before
    monkeypatch.setenv("RETAIN_NODE_RANK", "0")
    assert run_stage(line, "r-1", INGEST, fake_stage(INGEST, "ok")).status == "done"


def test_a_run_and_its_version_say_what_they_cost(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cl_steps.steps.promote, "_check_figures", lambda root, params, verdict, run: None)
    monkeypatch.setattr(execute, "device_of", lambda step, compute: GPU if step.name == "update" else CPU)
    monkeypatch.setenv("RETAIN_IMAGE", "example/retain-steps@sha256:1")
    play(line, "r-1", GOOD)
    times = of_branch(line, "r-1")
    promote.run(line, "r-1")
    with reading(line.git) as main:
        record, event = documents(main)[-1], main.ledger().runs["r-1"]
        assert main.read("reports/times.json") is None
    assert record["times"] == event.times == times
    assert record["gpu_seconds"] == event.gpu_seconds == times["update"]["gpu_seconds"] == times["update"]["seconds"]
    assert record["environment"]["devices"] == ["H200"]
    assert record["environment"]["image"] == "example/retain-steps@sha256:1"
    assert close.run(line, "r-1") == "promoted"
