"""A step as a Kubernetes pod: Airflow's own pod operator, deferred, with our answer to each way in which a pod ends.

While the pod works nothing of Airflow does: the triggerer looks after it, and a scheduler, worker or triggerer that
is ended or started again finds the same pod by what Airflow's task state and the pod's labels say. Kubernetes' API may
be away for minutes meanwhile (`patience.py`): the pod works on, and so does its try.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NoReturn

from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from airflow.triggers.base import BaseTrigger, TriggerEvent
from kubernetes.client import ApiClient, V1EnvVar, V1Pod
from kubernetes.client.exceptions import ApiException

from cl_steps.documents import Json
from cl_steps.errors import Unavailable
from cl_steps.orchestration.pods.failures import CONTAINER, Finding, find, refused
from cl_steps.orchestration.pods.patience import patient
from cl_steps.orchestration.pods.profiles import Profile
from cl_steps.orchestration.settling import IntegrityFault

MAX_DISRUPTIONS, MAX_PARTS, NOT_FOUND = 50, 64, 404
PARTS, DISRUPTIONS = "retain_micro_batches", "retain_disruptions"
SETTLE_SECONDS = 10.0
"""A trigger fires no sooner. Airflow fails a task that comes back before its scheduler has seen it wait, which takes a
second or three (apache/airflow#71580)."""


class PatientHook(KubernetesHook):  # type: ignore[misc]
    """Airflow's own, whose every request is asked again where Kubernetes' API is away."""

    def get_conn(self) -> ApiClient:
        """The client of the connection."""
        return patient(super().get_conn())


class StepTrigger(KubernetesPodTrigger):  # type: ignore[misc]
    """Airflow's own, that lets its task settle first."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """As Airflow keeps it."""
        return f"{__name__}.{type(self).__qualname__}", super().serialize()[1]

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the pod until there is something to do."""
        await asyncio.sleep(SETTLE_SECONDS)
        async for event in super().run():
            yield event


class StepPod(KubernetesPodOperator):  # type: ignore[misc]
    """Runs the pod of `manifest`; `reaps` selects pods that must be gone before it starts (those that close ends)."""

    template_fields = (*KubernetesPodOperator.template_fields, "reaps")
    MAX_REDEFER_ATTEMPTS = 50
    """So often may the triggerer lose sight of a pod at work (it waits a minute for an API that is away)."""

    def __init__(self, *, manifest: Json, profile: Profile, reaps: str = "", **options: Any) -> None:
        super().__init__(
            pod_template_dict=dict(manifest),
            base_container_name=CONTAINER,
            namespace=profile.namespace,
            kubernetes_conn_id=profile.connection or None,
            deferrable=True,
            poll_interval=profile.poll_seconds,
            logging_interval=profile.log_seconds,
            schedule_timeout_seconds=profile.schedule_seconds,
            startup_timeout_seconds=profile.start_seconds,
            termination_grace_period=profile.grace_seconds,
            termination_message_policy="FallbackToLogsOnError",
            container_name_log_prefix_enabled=False,
            log_pod_spec_on_failure=False,  # it would print the pod's environment
            log_events_on_failure=True,
            do_xcom_push=False,
            # The pod's own deadline holds whether Airflow is up or not.
            execution_timeout=None,
            **options,
        )
        self.reaps = reaps
        self.has_jobs = profile.nodes > 1
        self._last: dict[str, Any] | None = None

    @cached_property
    def hook(self) -> PatientHook:
        """How the cluster is reached."""
        return PatientHook(conn_id=self.kubernetes_conn_id, in_cluster=self.in_cluster, config_file=self.config_file,
                           cluster_context=self.cluster_context)  # fmt: skip

    def execute(self, context: Context) -> None:
        """Start the pod, or find the one that runs already, and hand it to the triggerer."""
        with reached():
            if self.reaps:
                self._reap(self.reaps)
            try:
                super().execute(context)
            except ApiException as error:
                self._settle(context, refused(error.status, str(error.body or error.reason)))

    def defer(self, *, trigger: BaseTrigger, **options: Any) -> NoReturn:
        """As Airflow does, with our trigger for a pod."""
        own = StepTrigger(**trigger.serialize()[1]) if type(trigger) is KubernetesPodTrigger else trigger
        super().defer(trigger=own, **options)
        raise AssertionError

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> None:
        """The pod ended, or never started: do what that asks for."""
        with reached():
            try:
                super().trigger_reentry(context, event)
            except AirflowException:
                finding = find(self._last)
                if finding.todo != "done":
                    self._settle(context, finding)

    def cleanup(self, pod: V1Pod, remote_pod: V1Pod, *rest: Any, **options: Any) -> None:
        """As the library does; the pod's last state is kept, since the pod itself is deleted here."""
        self._last = ApiClient().sanitize_for_serialization(remote_pod) if remote_pod else None
        super().cleanup(pod, remote_pod, *rest, **options)

    def on_kill(self) -> None:
        """The worker was asked to end, which is no reason to end the pod: the next try finds it at work.

        Where a person ends the task, the triggerer deletes the pod, or `close` does, which ends what is left of a run.
        """
        self._killed = True

    def build_pod_request_obj(self, context: Context | None = None, *, dry_run: bool = False) -> V1Pod:
        """The pod, with what earlier tries found out about its memory, its arguments as they are."""
        parts = self._remembered(context, PARTS) or 1
        self.env_vars = [V1EnvVar(name="RETAIN_MICRO_BATCHES", value=str(parts))] if parts > 1 else []
        pod = super().build_pod_request_obj(context, dry_run=dry_run)
        for container in pod.spec.containers:
            # Kubernetes takes $(NAME) in them for a variable, and $$ for a $; a person's reason may hold either.
            container.args = [argument.replace("$", "$$") for argument in container.args or []]
        return pod

    def _settle(self, context: Context, finding: Finding) -> NoReturn:
        if finding.todo == "resume" and self._count(context, DISRUPTIONS) <= MAX_DISRUPTIONS:
            self.log.warning("%s: it goes on from its checkpoint in a new pod", finding.sentence)
            self.pod = self.pod_request_obj = self._last = None
            self.execute(context)
        if finding.todo == "smaller":
            parts = min(MAX_PARTS, 2 * (self._remembered(context, PARTS) or 1))
            self._remember(context, PARTS, parts)
            raise AirflowException(f"{finding.sentence}: the next try works through each batch in {parts} parts")
        if finding.todo == "skip":
            raise AirflowSkipException(f"stale, and closed as such: {finding.sentence}")
        if finding.kind == "integrity":
            raise IntegrityFault(finding.sentence)
        raise AirflowFailException(finding.sentence) if finding.todo == "fail" else AirflowException(finding.sentence)

    def forget(self, context: Context) -> None:
        """End the pod that an earlier try of this task left: what it was to do is done, and nobody waits for it."""
        self._reap(self._build_find_pod_label_selector(context))

    def _reap(self, selected: str) -> None:
        """End the pods that are selected: their tasks are over."""
        if self.has_jobs:
            for job in self.hook.batch_v1_client.list_namespaced_job(self.namespace, label_selector=selected).items:
                self.end_job(job.metadata.name)
        pods = self.client.list_namespaced_pod(namespace=self.namespace, label_selector=selected).items
        for pod in pods:
            self.log.warning("pod %s is still there after its task: it is ended", pod.metadata.name)
            self.pod_manager.delete_pod(pod)

    def end_job(self, name: str) -> None:
        """Delete a Job with its pods; no mistake where it is gone already."""
        try:
            self.hook.batch_v1_client.delete_namespaced_job(name, self.namespace, propagation_policy="Background")
        except ApiException as error:
            if error.status != NOT_FOUND:
                raise

    def _count(self, context: Context, key: str) -> int:
        count = (self._remembered(context, key) or 0) + 1
        self._remember(context, key, count)
        return count

    def _remembered(self, context: Context | None, key: str) -> int:
        """A number that survives tries of this task; 0 where none was kept."""
        store = context.get("task_state_store") if context else None
        return int(store.get(key) or 0) if store is not None else 0

    def _remember(self, context: Context, key: str, value: int) -> None:
        store = context.get("task_state_store")
        if store is not None:
            store.set(key, value)


@contextmanager
def reached() -> Iterator[None]:
    """Say for Airflow that Kubernetes' API was away for too long."""
    try:
        yield
    except Unavailable as error:
        raise AirflowException(f"{error}; what is at work goes on, and the next try finds it") from error
