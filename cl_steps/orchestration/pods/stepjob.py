"""A step on several nodes at once: the same pod as a step's, many times, as an Indexed Job (`nodes.py`).

Deferred like a single pod, and found again like one: by the labels of its line, run and step. Every `log_seconds` the
words of all nodes come into the task's log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook
from airflow.providers.cncf.kubernetes.utils.pod_manager import detect_pod_terminate_early_issues
from airflow.sdk import Context
from airflow.triggers.base import BaseTrigger, TriggerEvent
from kubernetes.client import ApiClient, V1Pod
from kubernetes.client.exceptions import ApiException
from kubernetes_asyncio.client import BatchV1Api
from urllib3.exceptions import HTTPError

from cl_steps.documents import Json
from cl_steps.orchestration.pods.failures import CONTAINER, find, refused
from cl_steps.orchestration.pods.nodes import find_of_job, has_ended, indexed, waits_too_long
from cl_steps.orchestration.pods.profiles import Profile
from cl_steps.orchestration.pods.steppod import NOT_FOUND, SETTLE_SECONDS, StepPod, reached

INDEX = "batch.kubernetes.io/job-completion-index"
LOG = logging.getLogger("retain.kubernetes")


class JobTrigger(BaseTrigger):  # type: ignore[misc]
    """Fires when a Job is over or gone, and at the latest after `log_seconds`."""

    def __init__(self, *, name: str, namespace: str, connection: str | None, poll: float, log_seconds: float) -> None:
        super().__init__()
        self.facts: dict[str, Any] = {
            "name": name,
            "namespace": namespace,
            "connection": connection,
            "poll": poll,
            "log_seconds": log_seconds,
        }

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """As Airflow keeps it."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self.facts

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the Job until there is something to do."""
        facts, end = self.facts, time.monotonic() + self.facts["log_seconds"]
        hook = AsyncKubernetesHook(conn_id=facts["connection"])
        await asyncio.sleep(SETTLE_SECONDS)
        while time.monotonic() < end and not await _is_over(hook, facts["name"], facts["namespace"]):
            await asyncio.sleep(facts["poll"])
        yield TriggerEvent({"name": facts["name"]})

    async def on_kill(self) -> None:
        """A person ended the task, or cleared it: its Job ends, too (apache/airflow#62398)."""
        name, namespace = self.facts["name"], self.facts["namespace"]
        async with AsyncKubernetesHook(conn_id=self.facts["connection"]).get_conn() as connection:
            await BatchV1Api(connection).delete_namespaced_job(name, namespace, propagation_policy="Background")


async def _is_over(hook: AsyncKubernetesHook, name: str, namespace: str) -> bool:
    """Whether there is something to do for sure; where that cannot be known now, the task itself looks, and waits."""
    try:
        job = await hook.get_job_status(name, namespace)
    except Exception as error:
        if getattr(error, "status", None) == NOT_FOUND:
            return True
        LOG.warning("the job %s cannot be looked at now: %s", name, error)
        return False
    return has_ended(_plain(job)) is not None


class StepJob(StepPod):
    """Runs the pod of `manifest` on `nodes` nodes; their rendezvous is torch's own."""

    def __init__(self, *, nodes: int, profile: Profile, **options: Any) -> None:
        super().__init__(profile=profile, **options)
        self.nodes, self.log_seconds = nodes, profile.log_seconds
        self.patience_seconds = profile.schedule_seconds + profile.start_seconds

    def execute(self, context: Context) -> None:
        """Start the Job, or find the one that is at work already, and hand it to the triggerer."""
        with reached():
            try:
                name = self._at_work() or self._begin(context)
            except ApiException as error:
                self._settle(context, refused(error.status, str(error.body or error.reason)))
            self._wait(name, {})

    def trigger_reentry(self, context: Context, event: dict[str, Any], said: dict[str, str] | None = None) -> None:
        """Print what the nodes said since; where the Job is over, or never begins, do what that asks for."""
        with reached():
            self._look(context, event["name"], said or {})

    def _look(self, context: Context, name: str, said: dict[str, str]) -> None:
        job, pods = self._job(name), self._pods(name)
        self._say(pods, said)
        end = has_ended(job) if job else "gone"
        if end is None and not self._is_stuck(job or {}, pods):
            self._wait(name, said)
        finding = find_of_job(job or {}, _plain(pods)) if end != "Complete" else None
        self.end_job(name)
        if finding:
            self._settle(context, finding)

    def job_manifest(self, context: Context | None = None, *, dry_run: bool = False) -> dict[str, Any]:
        """The Job that Kubernetes is given."""
        pod = self.build_pod_request_obj(context, dry_run=dry_run)
        return indexed(_plain(pod), self.nodes)

    def _at_work(self) -> str | None:
        """The name of this step's Job that an earlier try began; one that is over is deleted."""
        labels = self.pod_template_dict["metadata"]["labels"]
        ours = ",".join(f"retain.dev/{key}={labels[f'retain.dev/{key}']}" for key in ("line", "run", "step"))
        found = None
        for job in _plain(self.hook.batch_v1_client.list_namespaced_job(self.namespace, label_selector=ours).items):
            name = str(job["metadata"]["name"])
            if has_ended(job):
                self.end_job(name)
            elif "deletionTimestamp" not in job["metadata"]:
                self.log.info("found the job %s of an earlier try at work", name)
                found = name
        return found

    def _begin(self, context: Context) -> str:
        job = self.job_manifest(context)
        self.hook.batch_v1_client.create_namespaced_job(self.namespace, job)
        self.log.info("started the job %s on %d nodes", job["metadata"]["name"], self.nodes)
        return str(job["metadata"]["name"])

    def _wait(self, name: str, said: dict[str, str]) -> None:
        trigger = JobTrigger(
            name=name,
            namespace=str(self.namespace),
            connection=self.kubernetes_conn_id,
            poll=self.poll_interval,
            log_seconds=self.log_seconds,
        )
        self.defer(trigger=trigger, method_name="trigger_reentry", kwargs={"said": said})

    def _job(self, name: str) -> dict[str, Any] | None:
        try:
            job = self.hook.batch_v1_client.read_namespaced_job_status(name, self.namespace)
        except ApiException as error:
            if error.status == NOT_FOUND:
                return None
            raise
        return dict(_plain(job))

    def _pods(self, name: str) -> list[V1Pod]:
        """The Job's pods, those that were replaced among them, by node."""
        labels = f"batch.kubernetes.io/job-name={name}"
        pods = self.client.list_namespaced_pod(self.namespace, label_selector=labels).items
        return sorted(pods, key=lambda pod: (_node_of(pod), pod.metadata.creation_timestamp))

    def _is_stuck(self, job: Json, pods: list[V1Pod]) -> bool:
        """Whether a pod will never begin, or has not for too long; a registry that is away is asked on and on."""
        if waits_too_long(job, _plain(pods), datetime.now(UTC), self.patience_seconds):
            return True
        return any(detect_pod_terminate_early_issues(pod) and find(_plain(pod)).todo == "fail" for pod in pods)

    def _say(self, pods: list[V1Pod], said: dict[str, str]) -> None:
        """Log each node's new lines; `said` remembers the moment of each pod's last one."""
        for pod in pods:
            name = pod.metadata.name
            for moment, words in self._lines(name, said.get(name, "")):
                said[name] = moment
                self.log.info("node %d: %s", _node_of(pod), words)

    def _lines(self, pod: str, after: str) -> list[tuple[str, str]]:
        """(moment, line) of what a pod said after a moment; nothing where it has no log yet, or none any more."""
        wanted: dict[str, Any] = {"container": CONTAINER, "timestamps": True, "_preload_content": False}
        if after:
            wanted["since_seconds"] = _seconds_since(after)
        try:
            text = self.client.read_namespaced_pod_log(pod, self.namespace, **wanted).data.decode("utf-8", "replace")
        except (ApiException, HTTPError):
            return []
        pairs = (line.partition(" ")[::2] for line in text.splitlines() if line)
        return [(moment, words) for moment, words in pairs if moment > after]


def _plain(found: Any) -> Any:
    """As Kubernetes' JSON."""
    return ApiClient().sanitize_for_serialization(found)


def _node_of(pod: V1Pod) -> int:
    return int((pod.metadata.labels or {}).get(INDEX, 0))


def _seconds_since(moment: str) -> int:
    return max(1, round((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()) + 2)
