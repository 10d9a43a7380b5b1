"""The weekly DAGs: every line has its own task, and what is wrong with one hides nothing of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cl_steps.__main__ import _parser
from cl_steps.orchestration import runners
from cl_steps.orchestration.on_line import OnLine
from cl_steps.orchestration.play import Player
from dags import maintenance
from tests.dags.acting import ActingChild
from tests.dags.conftest import make_line
from tests.dags.test_pods import LARGE
from tests.dags.test_telling import HERE, TOLD

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two lines in a lines.yaml, whose commands are written down and whose people want to know of integrity."""
    monkeypatch.setenv("RETAIN_LINES", str(tmp_path / "lines.yaml"))
    monkeypatch.setattr(runners, "Child", ActingChild)
    for known in (ActingChild.CALLS, ActingChild.CODES, TOLD):
        known.clear()
    text = "{{ retain.line }}: {{ retain.what }}: {{ retain.why }}"
    notify = [{"of": ["integrity"], "notifier": f"{HERE}.Pigeon", "arguments": {"text": text}}]
    entries = [
        {"name": name, "workspace": str(tmp_path / name), "notify": notify, "keep_days": days}
        for name, days in (("a", 30), ("b", 7.5))
    ]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        make_line(tmp_path / name)
    (tmp_path / "lines.yaml").write_text(yaml.safe_dump({"lines": entries}), encoding="utf-8")
    return tmp_path


def played(name: str) -> dict[str, tuple[str, int]]:
    """Task to its state and the number of its tries."""
    command = {"audit": maintenance.audit, "prune": maintenance.prune}[name]
    dag = maintenance.weekly("0 5 * * 6", "weekly", command)
    for task in dag.tasks:
        task.retry_delay, task.retry_exponential_backoff = maintenance.timedelta(0), 0
    run = dag.test()
    return {task.task_id: (str(task.state), task.try_number) for task in run.get_task_instances()}


def test_each_line_is_audited_and_pruned_by_its_own_settings(player: Player, lines: Path) -> None:
    assert played("audit") == {"a": ("success", 1), "b": ("success", 1)}
    assert played("prune") == {"a": ("success", 1), "b": ("success", 1)}
    assert sorted(arguments for arguments, _ in ActingChild.CALLS) == [
        ("audit", str(lines / "a")),
        ("audit", str(lines / "b")),
        ("prune", str(lines / "a"), "--days=30"),
        ("prune", str(lines / "b"), "--days=7.5"),
    ]
    assert all(_parser().parse_args(list(arguments)) for arguments, _ in ActingChild.CALLS)
    assert TOLD == []


def test_a_fault_is_red_told_and_final_and_hides_no_other_line(player: Player, lines: Path) -> None:
    ActingChild.CODES["a"] = [5]
    assert played("audit") == {"a": ("failed", 1), "b": ("success", 1)}
    assert TOLD == ["a: audit: retain: what is wrong, in a sentence"]


def test_what_may_pass_is_tried_again_and_alarms_nobody(player: Player, lines: Path) -> None:
    ActingChild.CODES["b"] = [6, 1]
    assert played("audit") == {"a": ("success", 1), "b": ("success", 3)}
    assert TOLD == []


def test_an_audit_has_a_gpu_steps_room_and_may_change_nothing() -> None:
    call = maintenance.audit(LARGE)
    made = runners.runner_of(LARGE).command(call.name, call.arguments, "r", gpu=call.gpu, trusted=call.trusted)
    spec = made.build_pod_request_obj(dry_run=True).spec
    assert spec.containers[0].resources.limits["nvidia.com/gpu"] == "4"
    assert {volume.secret.secret_name for volume in spec.volumes if volume.secret} == {"large-step"}
    assert maintenance.prune(LARGE).trusted


def test_every_line_has_its_task_in_its_pool_and_nothing_runs_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles = {"gpu": {"image": "i", "pool": "gpus"}}
    place = {"workspace": "https://git/a", "store": "s3://b/a", "profile": "gpu"}
    file = tmp_path / "lines.yaml"
    file.write_text(yaml.safe_dump({"profiles": profiles, "lines": [{"name": "p", **place}]}), encoding="utf-8")
    monkeypatch.setenv("RETAIN_LINES", str(file))
    found: dict[str, Any] = {}
    for command in (maintenance.audit, maintenance.prune):
        dag = maintenance.weekly("0 5 * * 6", "weekly", command)
        [task] = dag.tasks
        assert isinstance(task, OnLine)
        assert (dag.catchup, dag.max_active_runs) == (False, 1)
        assert dag.doc_md
        found[dag.dag_id] = (task.pool, task.execution_timeout)
    assert found == {"retain_audit": ("gpus", None), "retain_prune": ("default_pool", None)}
