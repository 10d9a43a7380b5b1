"""The lines of the trial, what lands in them, and what is asked of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cl_steps.demo.nights import write_night
from cl_steps.ledger.events import RunEvent
from cl_steps.repository.mainline import reading
from tests.cluster.airflow import Airflow
from tests.cluster.site import NAMESPACE, STEPS_IMAGE, Site, apply, kubectl

STEP = {"cpu": "900m", "memory": "3Gi"}
POD = {"image": STEPS_IMAGE, "namespace": NAMESPACE, "pull_policy": "IfNotPresent", "cpu_step": STEP, "scratch": "4Gi",
       "checks": {"cpu": "300m", "memory": "2Gi", "scratch": "512Mi"}}  # fmt: skip
QUICK = {"poll_seconds": 2, "log_seconds": 10, "grace_seconds": 30, "schedule_seconds": 600, "start_seconds": 300}
PROFILES: dict[str, Any] = {
    "cpu": {**POD, **QUICK, "gpu_step": {**STEP, "gpus": 0, "shm": "256Mi"}},
    "tight": {**POD, **QUICK, "gpu_step": {"cpu": "900m", "memory": "260Mi", "gpus": 0, "shm": "16Mi"}},
    "queued": {**POD, **QUICK, "gpu_step": {**STEP, "gpus": 0, "shm": "256Mi"}, "queue": "retain"},
    "wide": {**POD, **QUICK, "gpu_step": {"cpu": "450m", "memory": "3Gi", "gpus": 0, "shm": "256Mi"}, "nodes": 2},
}
LINES = {"demo": "cpu", "judged": "cpu", "tight": "tight", "wide": "wide", "queued": "queued"}


def entry(name: str, git: str) -> dict[str, Any]:
    """A line of lines.yaml."""
    return {
        "name": name,
        "workspace": f"{git}/{name}.git",
        "profile": LINES[name],
        "schedule": None,
        "secrets": {
            "step": "step",
            "trusted": "trusted",
            "signing": f"{name}-signing",
            "judge": f"{name}-judge",
            "trusted_keys": f"{name}-keys",
        },
        "retry_seconds": 5,
        "retries": 5,
        "ask": {"hours": 0.5},
        "page": True,
        **{key: value.format(name) for key, value in PLACES.items()},
    }


PLACES = {"store": "s3://retain/{}", "work": "s3://retain/work/{}", "landing": "s3://retain/landing/{}"}

SHORT = {"update.checkpoint_every": 40}
"""Looks of the guard, and so checkpoints, come often: an evicted pod shows where it goes on."""


def land(place: Site, line: str, night: int) -> None:
    """Put a night's pictures where the line's new assets arrive."""
    import fsspec

    folder = place.folder / f"{line}-night-{night}"
    write_night(folder, night, seed=0)
    fsspec.filesystem("s3").put(str(folder), f"retain/landing/{line}/night-{night}", recursive=True)


def last(place: Site, line: str) -> RunEvent:
    """How the line's latest run ended, as main has it."""
    with reading(f"{place.git}/{line}.git") as main:
        return list(main.ledger().runs.values())[-1]


def nothing_is_left(place: Site, line: str) -> None:
    """No pod of the line, and no run that did not end."""
    end = time.monotonic() + 120
    while place.pods(f"retain.dev/line={line}"):
        assert time.monotonic() < end, place.pods(f"retain.dev/line={line}")
        time.sleep(2)
    assert place.read("status", line)["running"] == []


def wait_for_question(airflow: Airflow, line: str, run: str) -> None:
    """Until a person is asked about the run, and has read the question: Airflow loses an answer that is too quick."""
    end = time.monotonic() + 1800
    while airflow.tasks(line, run).get("ask", ("", 0))[0] != "awaiting_input":
        assert airflow.state(line, run) in ("queued", "running"), airflow.tasks(line, run)
        assert time.monotonic() < end, airflow.tasks(line, run)
        time.sleep(2)
    time.sleep(8)


def evict(pod: str) -> None:
    """As a drain of the node does."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    kubectl("create", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction", "-f", "-", stdin=json.dumps(body))


@contextmanager
def running_pod(name: str, cpu: str, labels: dict[str, str], *command: str) -> Iterator[None]:
    """A pod of ours beside the steps', as the `restricted` standard wants it, from its start on; gone afterwards."""
    container = {
        "name": name,
        "image": STEPS_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "resources": {"requests": {"cpu": cpu, "memory": "64Mi", "ephemeral-storage": "1Mi"}},
    }
    spec = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
    }
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels}
    apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    try:
        kubectl("-n", NAMESPACE, "wait", "--for=jsonpath={.status.containerStatuses[0].started}", f"pod/{name}")
        yield
    finally:
        kubectl("-n", NAMESPACE, "delete", "pod", name, "--grace-period=0", "--force", "--wait=true")
