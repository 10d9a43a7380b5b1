"""Many lines' nights at once under a whole Airflow: scheduler, processes, database. Only the steps are stubs.

`make airflow`'s own processes run the real DAGs; each step is a process that sleeps and commits (`stubbed/`).
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil
import yaml

from cl_steps.orchestration import serve
from cl_steps.repository.line import resolve
from cl_steps.repository.mainline import reading
from tests.cluster.airflow import FINAL, Airflow
from tests.lasting import documents

ROOT = Path(__file__).parents[2]
LEARN = {"ingest": "ok", "drift": "drifted"}
NIGHTS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("promoted", {**LEARN, "gate": "promote"}),
    ("no_update", {"ingest": "ok", "drift": "quiet"}),
    ("rejected", {**LEARN, "gate": "reject"}),
    ("no_update", {"ingest": "too_few"}),
    ("promoted", {**LEARN, "update": {"codes": [6]}, "gate": "promote"}),
)
"""How a night ends, and what its steps find: one after the other for each line; in the last, a remote is away once."""
STEPS = {
    "promoted": ("ingest", "drift", "update", "evaluate", "gate", "promote", "close"),
    "rejected": ("ingest", "drift", "update", "evaluate", "gate", "close"),
}
LOOK_SECONDS = 3.0


@dataclass(frozen=True)
class Figures:
    """What it took: seconds from the first trigger to the last end, tasks that ran, and the most memory of all."""

    nights: int
    seconds: float
    tasks: int
    peak_bytes: int


def play(folder: Path, count: int, database: str = "", seconds: float = 1500) -> Figures:
    """Play a night of each of `count` lines, all triggered at once, and look whether each ended as it had to."""
    lines = [_line(folder, number) for number in range(count)]
    (folder / ".retain").mkdir()
    (folder / ".retain" / "lines.yaml").write_text(yaml.safe_dump({"lines": lines}), encoding="utf-8")
    names = [line["name"] for line in lines]
    with _airflow(folder, database) as airflow, _watched(airflow) as peak:
        _each(airflow.wait_for_dag, names)
        began = time.monotonic()
        runs = dict(zip(names, _each(airflow.trigger, names), strict=True))
        states = _wait(airflow, names, began + seconds)
        took = time.monotonic() - began
        assert states == {name: {run: "success"} for name, run in runs.items()}
        tasks = [airflow.tasks(name, runs[name]) for name in names]
    for number, name in enumerate(names):
        check(folder / name, NIGHTS[number % len(NIGHTS)][0], tasks[number])
    ran = sum(tries for found in tasks for state, tries in found.values() if state == "success")
    return Figures(count, took, ran, peak[0])


def check(workspace: Path, outcome: str, tasks: Mapping[str, tuple[str, int]]) -> None:
    """A night's end: one event of its run on main, each step called once (but for the try that failed)."""
    with reading(resolve(str(workspace)).git) as main:
        events = [json.loads(content) for content in main.folder_files("events").values()]
        records = documents(main)
    assert [(event["kind"], event["outcome"]) for event in events] == [("run", outcome)], workspace.name
    assert len(records) == (outcome == "promoted")
    scenario = json.loads((workspace / "scenario.json").read_text(encoding="utf-8"))
    again = Counter({name: len(wish["codes"]) for name, wish in scenario.items() if isinstance(wish, dict)})
    steps = STEPS.get(outcome) or (*list(scenario), "close")
    lines = (workspace / "calls.txt").read_text(encoding="utf-8").splitlines()
    assert Counter(line.split()[0] for line in lines) == Counter(steps) + again, workspace.name
    assert {line.split()[1] for line in lines} == {events[0]["run"]}
    assert {state for state, _ in tasks.values()} <= {"success", "skipped"}


def _line(folder: Path, number: int) -> dict[str, Any]:
    """A line's workspace, and its entry of lines.yaml."""
    from tests.dags.conftest import make_line

    workspace = folder / f"line-{number:03}"
    (workspace / "landing").mkdir(parents=True)
    make_line(workspace)
    (workspace / "scenario.json").write_text(json.dumps(NIGHTS[number % len(NIGHTS)][1]), encoding="utf-8")
    return {
        "name": workspace.name,
        "workspace": str(workspace),
        "schedule": None,
        "retry_seconds": 1,
        "page": False,
        "environment": ["RETAIN_STUB_SECONDS"],
    }


@contextmanager
def _airflow(folder: Path, database: str) -> Iterator[Airflow]:
    with socket.socket() as probe:
        probe.bind((serve.HOST, 0))
        port = probe.getsockname()[1]
    path = os.pathsep.join([str(ROOT / "tests" / "dags" / "stubbed"), str(ROOT)])
    settings = {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore", "RETAIN_STUB_SECONDS": "0.5", serve.DATABASE: database}
    airflow = Airflow(folder, port, settings)
    try:
        airflow.start()
        yield airflow
    finally:
        airflow.stop()


@contextmanager
def _watched(airflow: Airflow) -> Iterator[list[int]]:
    """The most bytes that all processes of this Airflow took at once, shared ones counted once."""
    assert airflow._process is not None
    root, peak, over = psutil.Process(airflow._process.pid), [0], Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            peak[0] = max(peak[0], sum(_bytes_of(process) for process in (root, *root.children(recursive=True))))

    thread = Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def _bytes_of(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0


def _each(function: Any, names: list[str]) -> list[Any]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(function, names))


def _wait(airflow: Airflow, names: list[str], end: float) -> dict[str, dict[str, str]]:
    """The states of all DAG runs by line, once none is at work any more."""
    while True:
        found: dict[str, dict[str, str]] = {name: {} for name in names}
        for run in airflow.ask("GET", f"/api/v2/dags/~/dagRuns?limit={2 * len(names)}")["dag_runs"]:
            found[run["dag_id"].removeprefix("retain_")][run["dag_run_id"]] = run["state"]
        left = [name for name, runs in found.items() if not runs or set(runs.values()) - set(FINAL)]
        if not left:
            return found
        assert time.monotonic() < end, f"still at work: {left}: {airflow.tasks(left[0], next(iter(found[left[0]])))}"
        time.sleep(LOOK_SECONDS)
