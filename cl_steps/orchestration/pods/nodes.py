"""A pod on several nodes: an Indexed Job (batch/v1) of the one template. Pure; a golden file pins it.

Kubernetes numbers the pods (`JOB_COMPLETION_INDEX`) and gives each the host name `<job>-<number>` under the headless
Service `retain-nodes` of the chart, so that torch's own rendezvous finds node 0 by its name; see
`cl_steps/run/machine.py` for what a step makes of it.

A pod that is taken off its node, or that ended because another was (exit code 143: after a checkpoint), is started
again by Kubernetes, Airflow up or not. Any other end of any pod ends the Job at once, and what follows is decided as
for a single pod (`failures.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from cl_steps.documents import Json
from cl_steps.orchestration.pods.failures import CONTAINER, SIGTERM, Finding, find

SERVICE = "retain-nodes"
SEVERAL = {"retain.dev/nodes": "several"}
"""The label by which the Service and the network policy find these pods."""
QUEUE = "kueue.x-k8s.io/queue-name"
KEEP_SECONDS = 24 * 3600
TELLING = (
    "memory", "storage", "deadline", "image", "integrity", "step", "registry", "start", "disrupted", "killed",
)  # fmt: skip
"""Kinds of findings, what explains the others first: where one pod ends, the rest are ended or die of it."""


def indexed(pod: Json, nodes: int) -> dict[str, Any]:
    """The Job that runs `pod` (a manifest) on so many nodes at once; its name is the pod's."""
    name, labels = pod["metadata"]["name"], {**pod["metadata"]["labels"], **SEVERAL}
    queue = {QUEUE: labels.pop(QUEUE)} if QUEUE in labels else {}
    spec = dict(pod["spec"])
    deadline = spec.pop("activeDeadlineSeconds")
    spec |= {"subdomain": SERVICE, "containers": [_told(c, name, nodes) for c in spec["containers"]]}
    about = {key: value for key, value in pod["metadata"].items() if key == "annotations"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": pod["metadata"]["namespace"], "labels": {**labels, **queue}},
        "spec": {
            "completionMode": "Indexed",
            "completions": nodes,
            "parallelism": nodes,
            "backoffLimit": 0,
            "podFailurePolicy": {"rules": [_ignored(disrupted=True), _ignored(disrupted=False)]},
            "activeDeadlineSeconds": deadline,
            "ttlSecondsAfterFinished": KEEP_SECONDS,
            "template": {"metadata": {"labels": labels, **about}, "spec": spec},
        },
    }


def _told(container: Json, name: str, nodes: int) -> dict[str, Any]:
    """The container with what it needs to find the others."""
    more = {"RETAIN_NODES": str(nodes), "MASTER_ADDR": f"{name}-0.{SERVICE}"}
    return {**container, "env": [*container["env"], *({"name": key, "value": more[key]} for key in sorted(more))]}


def _ignored(*, disrupted: bool) -> dict[str, Any]:
    """A rule for pods whose end Kubernetes does not count, and so starts again."""
    if disrupted:
        return {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return {"action": "Ignore", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [SIGTERM]}}


def has_ended(job: Json) -> str | None:
    """`Complete` or `Failed` where a Job (as Kubernetes' JSON) is over."""
    conditions = job.get("status", {}).get("conditions") or []
    over = (c["type"] for c in conditions if c["type"] in ("Complete", "Failed") and c["status"] == "True")
    return next(over, None)


def find_of_job(job: Json, pods: Iterable[Json]) -> Finding:
    """What became of a Job that did not end well, from what is left of its pods."""
    conditions = job.get("status", {}).get("conditions") or []
    if any(condition.get("reason") == "DeadlineExceeded" for condition in conditions):
        spec = {"activeDeadlineSeconds": job["spec"]["activeDeadlineSeconds"]}
        return find({"spec": spec, "status": {"reason": "DeadlineExceeded"}})
    findings = [find(pod) for pod in pods if pod.get("status", {}).get("phase") not in ("Running", "Succeeded")]
    if not findings and job and not has_ended(job):
        return Finding("start", "again", "none of its pods began in time: the queue has no room for it")
    return min(findings, key=lambda finding: TELLING.index(finding.kind), default=find(None))


def waits_too_long(job: Json, pods: Iterable[Json], now: datetime, seconds: float) -> bool:
    """Whether a pod of the Job has not begun so long after it was made, or the Job (in a queue) has none at all."""
    there = list(pods)
    waiting = [pod for pod in there if pod.get("status", {}).get("phase") in (None, "Pending")]
    made = (item["metadata"]["creationTimestamp"] for item in (waiting if there else [job]))
    return any((now - datetime.fromisoformat(moment)).total_seconds() > seconds for moment in made)
