"""`python -m dags.reap`: the pods of steps that nobody waits for any more are deleted, by a CronJob of the chart.

Airflow deletes the pods that it watched to their end, and `close` ends what is left of its run. What is here is for
the rest: an Airflow that lost its database, pods started by hand. A pod at work is never touched: its own deadline
ends it, and then it is found here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

SELECTOR = "app.kubernetes.io/part-of=retain,app.kubernetes.io/component=step"
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
FINISHED = ("Succeeded", "Failed")


def main(argv: Sequence[str] | None = None) -> int:
    """Delete what ended or never started and is older than `--older-hours`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dags.reap", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--older-hours", type=float, default=24.0)
    parser.add_argument("--namespace", default="", help="default: the one that this runs in")
    parser.add_argument("--dry-run", action="store_true", help="only say which")
    chosen = parser.parse_args(argv)
    namespace = chosen.namespace or (OWN_NAMESPACE.read_text().strip() if OWN_NAMESPACE.is_file() else "")
    if not namespace:
        print("python -m dags.reap: outside a pod it needs --namespace", file=sys.stderr)
        return 2
    reap(_client(), namespace, timedelta(hours=chosen.older_hours), dry_run=chosen.dry_run)
    return 0


def reap(client: Any, namespace: str, older: timedelta, *, dry_run: bool = False) -> list[str]:
    """Delete the orphans of a namespace and return their names; `client` is Kubernetes' CoreV1Api."""
    from kubernetes.client import ApiClient

    pods = ApiClient().sanitize_for_serialization(client.list_namespaced_pod(namespace, label_selector=SELECTOR).items)
    names = list(orphans(pods, datetime.now(UTC) - older))
    for name in names:
        print(f"{'would delete' if dry_run else 'deleting'} pod {name}")
        if not dry_run:
            client.delete_namespaced_pod(name, namespace)
    print(f"{len(names)} of {len(pods)} pods of steps had nobody who waits for them")
    return names


def orphans(pods: Iterable[Mapping[str, Any]], before: datetime) -> Iterable[str]:
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


def _client() -> Any:
    from kubernetes import config
    from kubernetes.client import CoreV1Api

    try:
        config.load_incluster_config()
    except config.ConfigException:
        config.load_kube_config()
    return CoreV1Api()


if __name__ == "__main__":
    sys.exit(main())
