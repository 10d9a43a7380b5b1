"""The reaper: what ended or never began long ago goes, what works stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from cl_steps.orchestration.reap import main, orphans, reap

NOW = datetime.now(UTC)


def pod(name: str, phase: str, created: float, ended: float | None = None) -> dict[str, Any]:
    """A pod made `created` and ended `ended` hours ago."""
    state = {"terminated": {"finishedAt": ago(ended)}} if ended is not None else {"running": {}}
    status = {"phase": phase, "containerStatuses": [{"name": "step", "state": state}]}
    return {"metadata": {"name": name, "creationTimestamp": ago(created)}, "status": status}


def ago(hours: float) -> str:
    return (NOW - timedelta(hours=hours)).isoformat(timespec="seconds").replace("+00:00", "Z")


PODS = [
    pod("works-for-days", "Running", 70),
    pod("ended-long-ago", "Failed", 70, 30),
    pod("done-long-ago", "Succeeded", 70, 25),
    pod("just-ended", "Failed", 70, 1),
    pod("never-began", "Pending", 48),
    pod("waits-for-room", "Pending", 2),
]


def test_only_what_is_over_is_an_orphan() -> None:
    before = NOW - timedelta(hours=24)
    assert list(orphans(PODS, before)) == ["ended-long-ago", "done-long-ago", "never-began"]


@pytest.mark.parametrize("dry_run", [False, True])
def test_orphans_are_deleted_and_nothing_else(dry_run: bool) -> None:
    asked, deleted = [], []

    def listed(namespace: str, label_selector: str) -> Any:
        asked.append((namespace, label_selector))
        return SimpleNamespace(items=PODS)

    client = SimpleNamespace(
        list_namespaced_pod=listed, delete_namespaced_pod=lambda name, namespace: deleted.append((namespace, name))
    )
    names = reap(client, None, "retain", timedelta(hours=24), dry_run=dry_run)
    assert asked == [("retain", "app.kubernetes.io/part-of=retain,app.kubernetes.io/component=step")]
    assert deleted == ([] if dry_run else [("retain", name) for name in names])
    assert len(names) == 3


def of(job: str, pod: dict[str, Any]) -> dict[str, Any]:
    pod["metadata"]["labels"] = {"batch.kubernetes.io/job-name": job}
    return pod


def job(name: str, created: float) -> dict[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": ago(created)}}


def test_a_job_goes_with_its_pods_once_none_of_them_has_work() -> None:
    jobs = [job("over", 70), job("works", 70), job("restarts", 70), job("queued", 70), job("young", 1)]
    pods = [
        of("over", pod("over-0", "Failed", 70, 30)),
        of("works", pod("works-0", "Failed", 70, 30)),
        of("works", pod("works-1", "Running", 30)),
        of("restarts", pod("restarts-0", "Pending", 1)),
        pod("alone", "Failed", 70, 30),
    ]
    deleted: list[tuple[str, str]] = []
    core = SimpleNamespace(
        list_namespaced_pod=lambda *_, **__: SimpleNamespace(items=pods),
        delete_namespaced_pod=lambda name, namespace: deleted.append(("pod", name)),
    )
    batch = SimpleNamespace(
        list_namespaced_job=lambda *_, **__: SimpleNamespace(items=jobs),
        delete_namespaced_job=lambda name, namespace, propagation_policy: deleted.append(("job", name)),
    )
    reap(core, batch, "retain", timedelta(hours=24))
    assert deleted == [("job", "over"), ("job", "queued"), ("pod", "works-0"), ("pod", "alone")]


def test_outside_a_pod_it_needs_a_namespace(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "--namespace" in capsys.readouterr().err
