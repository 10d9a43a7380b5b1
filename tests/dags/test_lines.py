"""The DAG: its edges are the pipeline's, its form is typed, and reading it costs nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import ParamValidationError

from cl_steps.config import RUN_ID, Update
from cl_steps.errors import UsageError
from cl_steps.orchestration.light import form, identity, spec_of, successors
from cl_steps.orchestration.line_dag import build, build_all
from cl_steps.orchestration.registry import Entry
from cl_steps.pipeline import STAGES, STEPS, Said, next_step

HEAVY = ("torch", "diffusers", "transformers", "peft", "dvc", "evidently", "sklearn", "matplotlib", "pandas", "pyarrow")
ENTRY = Entry(name="a", workspace="/nowhere", timezone="Europe/Berlin")


@pytest.fixture(scope="module")
def dag() -> DAG:
    return build(ENTRY)


def test_reading_the_dags_imports_nothing_heavy(tmp_path: Path) -> None:
    lines = tmp_path / "lines.yaml"
    lines.write_text("lines: [{name: a, workspace: /w}, {name: b, workspace: /w}]", encoding="utf-8")
    files = "dags.broken_lines, dags.watch, dags.maintenance, dags.acts, dags.lines as d"
    code = f"import sys, {files}; d.retain_a, d.retain_b; print([m for m in {HEAVY} if m in sys.modules])"
    environment = {"PATH": "/usr/bin:/bin", "RETAIN_LINES": str(lines), "AIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip().endswith("[]")


def test_a_tasks_process_reads_its_own_line_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = tmp_path / "lines.yaml"
    lines.write_text("lines: [{name: a, workspace: /w}, {name: b, workspace: /w}]", encoding="utf-8")
    monkeypatch.setenv("RETAIN_LINES", str(lines))
    assert set(build_all()) == {"retain_a", "retain_b"}
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "retain_b")
    assert set(build_all()) == {"retain_b"}


def steps_after(dag: DAG, task_id: str) -> set[str]:
    """The steps that a task leads to, decisions passed through."""
    found: set[str] = set()
    for name in dag.get_task(task_id).downstream_task_ids:
        found |= steps_after(dag, name) if name.startswith("after_") else {name}
    return found


def test_the_edges_are_those_of_the_pipeline(dag: DAG) -> None:
    for stage in STAGES:
        assert steps_after(dag, stage.name) == set(successors(stage))
    assert steps_after(dag, "open") == {STAGES[0].name, "close"}
    assert steps_after(dag, "promote") == {"close"}
    assert steps_after(dag, "close") == {"report"}
    assert {name for name in dag.task_ids if name in STEPS} == set(STEPS)


def test_the_successors_are_what_the_rule_says_of_real_reports() -> None:
    found: dict[str, set[str]] = {}
    reports: dict[str, Said] = {}
    for stage in STAGES:
        for verdict in stage.verdicts or (None,):
            now = {**reports, stage.name: Said("done", verdict)}
            found.setdefault(stage.name, set()).add(next_step(now))
        reports[stage.name] = Said("done", {"ingest": "ok", "drift": "drifted"}.get(stage.name))
    assert found == {stage.name: set(successors(stage)) for stage in STAGES}


def test_close_runs_always_and_hides_no_failure(dag: DAG) -> None:
    close, leaf = dag.get_task("close"), dag.get_task("promote")
    assert close.is_teardown
    assert not close.on_failure_fail_dagrun
    # What leads only to a teardown counts as a leaf: an upstream failure there makes the DAG run red.
    assert leaf.downstream_task_ids == {"close"}


def test_nothing_piles_up(dag: DAG) -> None:
    assert not dag.catchup
    update = dag.get_task("update")
    assert (update.retries, update.retry_exponential_backoff) == (5, 2.0)
    assert dag.get_task("ask").retries == 5, "an answer that Airflow loses is asked for again"


def test_the_form_is_typed_and_documented() -> None:
    params = form()
    assert {name: param.schema["type"] for name, param in params.items()} == {
        "force": "boolean",
        "method": ["null", "string"],
        "batch": ["null", "string"],
        "set": "object",
        "reason": ["null", "string"],
    }
    assert all(param.description and param.schema["title"] for param in params.values())
    for method in (None, "replay_distill", "replay", "finetune"):
        params["method"].resolve(method)
        assert method is None or Update(method=method)


@pytest.mark.parametrize(
    ("name", "value"),
    [("force", "yes"), ("method", "magic"), ("batch", "../main"), ("set", "update.steps=1"), ("reason", 7)],
)
def test_the_form_refuses(name: str, value: object) -> None:
    with pytest.raises(ParamValidationError):
        form()[name].resolve(value)


def asked(**given: Any) -> Any:
    values = {name: param.value for name, param in form().items()} | given
    kind = SimpleNamespace(value="manual")
    return spec_of(SimpleNamespace(run_type=kind, triggering_user_name="ann"), values, "2026-01-01-abc")


def test_a_run_by_hand_says_who_and_why() -> None:
    spec = asked(force=True, method="finetune", batch="2026-01-02-abc", set={"update.steps": 5}, reason=" to see ")
    assert (spec.trigger, spec.by, spec.reason, spec.force) == ("manual", "ann", "to see", True)
    assert (spec.batch, spec.set) == ("2026-01-02-abc", {"update.steps": 5, "update.method": "finetune"})


@pytest.mark.parametrize(
    "wish", [{"force": True}, {"method": "replay"}, {"batch": "2026-01-02-abc"}, {"set": {"seed": 1}}]
)
def test_a_wish_needs_a_reason(wish: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="needs a reason"):
        asked(**wish)


def test_one_method_is_enough() -> None:
    with pytest.raises(UsageError, match="one of them"):
        asked(method="replay", set={"update.method": "finetune"}, reason="both")


def test_the_run_has_the_day_of_the_line_and_a_name_that_git_takes() -> None:
    late = datetime(2026, 1, 1, 23, 30, tzinfo=UTC)
    run = SimpleNamespace(
        dag_id="retain_a", run_id="manual__2026-01-01T23:30:00+00:00", logical_date=None, run_after=late
    )
    assert identity(run, "UTC").startswith("2026-01-01-")
    assert identity(run, "Europe/Berlin").startswith("2026-01-02-")
    assert RUN_ID.fullmatch(identity(run, "UTC"))
