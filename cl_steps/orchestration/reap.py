"""`python -m cl_steps.orchestration.reap`, a CronJob of the chart: pods of steps that nobody waits for are deleted.

Airflow deletes the pods that it watched to their end, and `close` ends what is left of its run. What is here is for
the rest: an Airflow that lost its database, pods started by hand. A pod at work is never touched: its own deadline
ends it, and then it is found here. With `--jobs` so are Jobs, the steps on several nodes: none of whose pods has work.
A run whose close Airflow skipped is nothing to be reaped: the close of a later one ends it (`cl_steps/steps/close.py`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cl_steps.documents import Json
from cl_steps.errors import RetainError

JOB = "batch.kubernetes.io/job-name"
SELECTOR = "app.kubernetes.io/part-of=retain,app.kubernetes.io/component=step"
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
FINISHED = ("Succeeded", "Failed")
NOT_FOUND = 404
PATIENCE_SECONDS = 300.0
"""Less than the CronJob's own deadline: it says why before it is ended."""


def main(argv: Sequence[str] | None = None) -> int:
    """Delete what ended or never started and is older than `--older-hours`; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m cl_steps.orchestration.reap", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--older-hours", type=float, default=24.0)
    parser.add_argument("--namespace", default="", help="default: the one that this runs in")
    parser.add_argument("--jobs", action="store_true", help="look at Jobs, too")
    parser.add_argument("--dry-run", action="store_true", help="only say which")
    chosen = parser.parse_args(argv)
    namespace = chosen.namespace or (OWN_NAMESPACE.read_text().strip() if OWN_NAMESPACE.is_file() else "")
    if not namespace:
        print("python -m cl_steps.orchestration.reap: outside a pod it needs --namespace", file=sys.stderr)
        return 2
    try:
        core, batch = _clients()
        older = timedelta(hours=chosen.older_hours)
        reap(core, batch if chosen.jobs else None, namespace, older, dry_run=chosen.dry_run)
    except RetainError as error:
        print(f"python -m cl_steps.orchestration.reap: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def reap(core: Any, batch: Any, namespace: str, older: timedelta, *, dry_run: bool = False) -> list[str]:
    """Delete the orphans of a namespace and return their names.

    `core` and `batch` are Kubernetes' CoreV1Api and BatchV1Api; without the second, Jobs are left alone.
    """
    before = datetime.now(UTC) - older
    pods = _plain(core.list_namespaced_pod(namespace, label_selector=SELECTOR))
    jobs = _plain(batch.list_namespaced_job(namespace, label_selector=SELECTOR)) if batch else []
    over = list(orphan_jobs(jobs, pods, before))
    # The pods of a Job go with it.
    names = [name for name in orphans(pods, before) if _job_of(pods, name) not in over]
    for kind, found in (("job", over), ("pod", names)):
        for name in found:
            print(f"{'would delete' if dry_run else 'deleting'} {kind} {name}")
    if not dry_run:
        for name in over:
            _delete(batch.delete_namespaced_job, name, namespace, propagation_policy="Background")
        for name in names:
            _delete(core.delete_namespaced_pod, name, namespace)
    print(f"{len(names)} of {len(pods)} pods and {len(over)} of {len(jobs)} jobs had nobody who waits for them")
    return [*over, *names]


def orphan_jobs(jobs: Iterable[Json], pods: Sequence[Json], before: datetime) -> Iterable[str]:
    """Names of the Jobs that were made, and whose pods (if any are left) ended or never started, before a moment."""
    over = set(orphans(pods, before))
    for job in jobs:
        name, made = job["metadata"]["name"], datetime.fromisoformat(job["metadata"]["creationTimestamp"])
        own = {pod["metadata"]["name"] for pod in pods if pod["metadata"].get("labels", {}).get(JOB) == name}
        if made < before and own <= over:
            yield name


def orphans(pods: Iterable[Json], before: datetime) -> Iterable[str]:
    """Names of the pods (as Kubernetes' JSON) that ended, or never started, before a moment."""
    for pod in pods:
        status = pod.get("status", {})
        ends = [
            state["terminated"]["finishedAt"]
            for state in (container.get("state", {}) for container in status.get("containerStatuses") or [])
            if "finishedAt" in (state.get("terminated") or {})
        ]
        since = max(ends, default=pod["metadata"]["creationTimestamp"])
        if status.get("phase") in (*FINISHED, "Pending") and datetime.fromisoformat(since) < before:
            yield pod["metadata"]["name"]


def _delete(ask: Callable[..., Any], name: str, namespace: str, **options: Any) -> None:
    """Delete one thing; no mistake where somebody else did."""
    from kubernetes.client.exceptions import ApiException

    try:
        ask(name, namespace, **options)
    except ApiException as error:
        if error.status != NOT_FOUND:
            raise


def _job_of(pods: Iterable[Json], name: str) -> str | None:
    metadata = next(pod["metadata"] for pod in pods if pod["metadata"]["name"] == name)
    label: str | None = metadata.get("labels", {}).get(JOB)
    return label


def _plain(found: Any) -> list[dict[str, Any]]:
    """A list of objects as Kubernetes' JSON."""
    from kubernetes.client import ApiClient

    return list(ApiClient().sanitize_for_serialization(found.items))


def _clients() -> tuple[Any, Any]:
    from kubernetes import config
    from kubernetes.client import ApiClient, BatchV1Api, CoreV1Api

    from cl_steps.orchestration.pods.patience import patient

    try:
        config.load_incluster_config()
    except config.ConfigException:
        config.load_kube_config()
    client = patient(ApiClient(), PATIENCE_SECONDS)
    return CoreV1Api(client), BatchV1Api(client)


if __name__ == "__main__":
    sys.exit(main())
