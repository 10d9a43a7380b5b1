"""What an Indexed Job's end makes of its task, that it is found again, and what its nodes say; it really runs in
tests/cluster."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from kubernetes.client import ApiClient, V1Job, V1Pod
from kubernetes.client.exceptions import ApiException

from cl_steps.orchestration.pods import stepjob
from cl_steps.orchestration.pods.nodes import find_of_job, has_ended, indexed, waits_too_long
from cl_steps.orchestration.pods.stepjob import JobTrigger
from cl_steps.orchestration.runners import runner_of
from cl_steps.orchestration.settling import IntegrityFault
from cl_steps.pipeline import STEPS
from tests.dags.test_failures import EVICTED, NO_ROOM, SCRATCH_FULL, ended, waiting
from tests.dags.test_pods import RUN, WIDE
from tests.dags.test_steppod import Store

NOW = datetime.now(UTC)
NAME = "wide-update-x"


def ago(hours: float) -> str:
    return (NOW - timedelta(hours=hours)).isoformat(timespec="seconds").replace("+00:00", "Z")


def job(end: str = "", hours: float = 0.1, reason: str = "", name: str = NAME) -> dict[str, Any]:
    """A Job made so long ago that is at work, or over."""
    conditions = [{"type": end, "status": "True", "reason": reason}] if end else []
    spec = {"completions": 2, "activeDeadlineSeconds": 28800}
    return {
        "metadata": {"name": name, "creationTimestamp": ago(hours)},
        "spec": spec,
        "status": {"conditions": conditions},
    }


def node(number: int, state: dict[str, Any], hours: float = 0.1) -> dict[str, Any]:
    """A pod of the Job."""
    labels = {"batch.kubernetes.io/job-completion-index": str(number)}
    metadata = {"name": f"{NAME}-{number}", "labels": labels, "creationTimestamp": ago(hours)}
    return {"metadata": metadata, **state}


def running() -> dict[str, Any]:
    return {"status": {"phase": "Running", "containerStatuses": [{"name": "step", "state": {"running": {}}}]}}


class Cluster:
    """As Kubernetes: the Jobs and pods of a namespace, and what their containers said."""

    def __init__(self, *pods: dict[str, Any], jobs: list[dict[str, Any]] | None = None) -> None:
        self.jobs = {found["metadata"]["name"]: found for found in jobs or []}
        self.pods = list(pods)
        self.said: dict[str, list[str]] = {}
        self.deleted: list[str] = []
        self.made: list[dict[str, Any]] = []

    def create_namespaced_job(self, namespace: str, body: dict[str, Any]) -> None:
        self.made.append(body)

    def list_namespaced_job(self, namespace: str, label_selector: str) -> Any:
        assert label_selector.startswith("retain.dev/line=wide,retain.dev/run=")
        return SimpleNamespace(items=[model(found, "V1Job") for found in self.jobs.values()])

    def read_namespaced_job_status(self, name: str, namespace: str) -> V1Job:
        if name not in self.jobs:
            raise ApiException(status=404)
        return model(self.jobs[name], "V1Job")

    def delete_namespaced_job(self, name: str, namespace: str, propagation_policy: str) -> None:
        self.deleted.append(name)
        if name not in self.jobs:
            raise ApiException(status=404)

    def list_namespaced_pod(self, namespace: str, label_selector: str) -> Any:
        return SimpleNamespace(items=[model(pod, "V1Pod") for pod in self.pods])

    def read_namespaced_pod_log(self, name: str, namespace: str, **wanted: Any) -> Any:
        if name not in self.said:
            raise ApiException(status=400)
        return SimpleNamespace(data="\n".join(self.said[name]).encode())


def model(found: dict[str, Any], kind: str) -> V1Job | V1Pod:
    """As Kubernetes' client gives it; what it wants and nobody here looks at is filled in."""
    whole = copy.deepcopy(found)
    if kind == "V1Job":
        whole["spec"]["template"] = {"spec": {"containers": [{"name": "step"}]}}
    for status in whole["status"].get("containerStatuses", []):
        status |= {"image": "i", "imageID": "i", "ready": False, "restartCount": 0}
    return ApiClient().deserialize(SimpleNamespace(data=json.dumps(whole)), kind)


@pytest.fixture
def store() -> Store:
    return Store()


def task(cluster: Cluster, name: str = "update") -> Any:
    made = runner_of(WIDE).task(STEPS[name], RUN)
    made.hook = SimpleNamespace(batch_v1_client=cluster, is_in_cluster=False)
    made.client = cluster
    return made


def begun(cluster: Cluster, store: Store) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        task(cluster).execute(context(store))
    return caught.value


def after(cluster: Cluster, store: Store, said: dict[str, str] | None = None) -> BaseException | None:
    """What the task raises when its trigger fired; None where it ended well."""
    try:
        task(cluster).trigger_reentry(context(store), {"name": NAME}, said)
    except (AirflowException, TaskDeferred) as raised:
        return raised
    return None


def context(store: Store) -> Any:
    ti = SimpleNamespace(dag_id="retain_wide", task_id="update", try_number=1, map_index=-1)
    return {"task_state_store": store, "ti": ti, "run_id": "r", "dag": SimpleNamespace()}


def test_only_the_update_runs_on_several_nodes() -> None:
    kinds = {name: type(runner_of(WIDE).task(step, RUN)).__name__ for name, step in STEPS.items()}
    assert kinds == {**dict.fromkeys(STEPS, "StepPod"), "update": "StepJob"}


def test_a_job_is_begun_once_and_handed_to_the_triggerer(store: Store) -> None:
    cluster = Cluster()
    deferred = begun(cluster, store)
    [made] = cluster.made
    facts = deferred.trigger.facts
    assert (facts["name"], facts["namespace"]) == (made["metadata"]["name"], "retain")
    assert deferred.method_name == "trigger_reentry"
    assert made["spec"]["completions"] == 2


def test_a_job_at_work_is_found_again_and_one_that_is_over_replaced(store: Store) -> None:
    cluster = Cluster(jobs=[job(name="at-work"), job("Failed", name="over")])
    assert begun(cluster, store).trigger.facts["name"] == "at-work"
    assert (cluster.made, cluster.deleted) == ([], ["over"])
    leaving = job(name="leaving")
    leaving["metadata"]["deletionTimestamp"] = ago(0)
    cluster = Cluster(jobs=[leaving])
    begun(cluster, store)
    assert len(cluster.made) == 1


def test_what_all_nodes_say_is_printed_once(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster(node(1, running()), node(0, running()), jobs=[job()])
    cluster.said = {f"{NAME}-0": ["2026-01-01T00:00:01Z step 1"], f"{NAME}-1": ["2026-01-01T00:00:02Z helps"]}
    deferred = after(cluster, store)
    assert isinstance(deferred, TaskDeferred)
    assert re.findall(r"node \d: [\w ]*\w", capsys.readouterr().out) == ["node 0: step 1", "node 1: helps"]
    cluster.said[f"{NAME}-0"].append("2026-01-01T00:00:09Z step 2")
    after(cluster, store, deferred.kwargs["said"])  # type: ignore[index]
    assert re.findall(r"node \d: [\w ]*\w", capsys.readouterr().out) == ["node 0: step 2"]


def test_a_job_that_is_complete_is_deleted_and_the_task_done(store: Store) -> None:
    cluster = Cluster(jobs=[job("Complete")])
    assert after(cluster, store) is None
    assert cluster.deleted == [NAME]


def test_memory_on_one_node_makes_smaller_parts_on_all(store: Store) -> None:
    cluster = Cluster(node(0, ended(1)), node(1, ended(137, "OOMKilled")), jobs=[job("Failed")])
    found = after(cluster, store)
    assert type(found) is AirflowException
    assert "in 2 parts" in str(found)
    cluster = Cluster()
    begun(cluster, store)
    [container] = cluster.made[0]["spec"]["template"]["spec"]["containers"]
    assert {"name": "RETAIN_MICRO_BATCHES", "value": "2"} in container["env"]


@pytest.mark.parametrize(
    ("cluster", "kind", "words"),
    [
        (Cluster(node(0, ended(2, message="wrong key")), node(1, ended(143)), jobs=[job("Failed")]),
         AirflowFailException, "wrong key"),
        (Cluster(node(0, ended(1)), node(1, ended(5, message="digest")), jobs=[job("Failed")]),
         IntegrityFault, "digest"),
        (Cluster(node(0, ended(6, message="store away")), jobs=[job("Failed")]), AirflowException, "store away"),
        (Cluster(node(0, ended(1)), jobs=[job("Failed", reason="DeadlineExceeded")]), AirflowFailException, "8 hours"),
        (Cluster(node(0, running()), node(1, NO_ROOM, hours=2), jobs=[job(hours=2)]), AirflowException, "no node had"),
        (Cluster(node(0, waiting("ImagePullBackOff", "no such image")), jobs=[job()]), AirflowFailException, "image"),
        (Cluster(node(0, SCRATCH_FULL), node(1, ended(143)), jobs=[job("Failed")]), AirflowFailException, "scratch"),
        (Cluster(node(0, waiting("ErrImagePull", "connection refused"), hours=2), jobs=[job(hours=2)]),
         AirflowException, "refused"),
        (Cluster(jobs=[job(hours=2)]), AirflowException, "queue"),
    ],
    ids=["parameters", "integrity", "remote", "deadline", "room", "image", "storage", "registry", "queue"],
)  # fmt: skip
def test_each_end_of_a_job_has_its_answer(cluster: Cluster, kind: type, words: str, store: Store) -> None:
    found = after(cluster, store)
    assert type(found) is kind
    assert words in str(found)
    assert cluster.deleted == [NAME]


def test_a_registry_that_is_away_is_asked_by_the_kubelet_on_and_on(store: Store) -> None:
    cluster = Cluster(node(0, waiting("ImagePullBackOff", "dial tcp: connection refused")), jobs=[job()])
    assert isinstance(after(cluster, store), TaskDeferred)
    assert cluster.deleted == []


def test_a_job_that_is_gone_begins_anew_at_once(store: Store) -> None:
    cluster = Cluster()
    assert isinstance(after(cluster, store), TaskDeferred)
    assert len(cluster.made) == 1


def test_what_kubernetes_refuses_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()

    def create(namespace: str, body: Any) -> None:
        raise ApiException(status=403, reason="Forbidden")

    monkeypatch.setattr(cluster, "create_namespaced_job", create)
    with pytest.raises(AirflowFailException, match="refuses the pod"):
        task(cluster).execute(context(store))


def test_close_ends_jobs_before_pods_that_they_would_make_again(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    cluster = Cluster(node(0, running()), jobs=[job()])
    close = task(cluster, "close")
    close.pod_manager = SimpleNamespace(delete_pod=lambda pod: cluster.deleted.append(pod.metadata.name))
    close._reap(close.reaps)
    assert cluster.deleted == [NAME, f"{NAME}-0"]


def test_pods_that_were_replaced_or_wait_in_a_queue() -> None:
    assert not waits_too_long(job(hours=9), [node(0, EVICTED, hours=9), node(0, NO_ROOM, hours=0.1)], NOW, 3600)
    assert waits_too_long(job(hours=9), [], NOW, 3600)
    assert not waits_too_long(job(hours=0.1), [], NOW, 3600)


def test_the_end_of_a_job_is_a_condition_that_holds() -> None:
    found = job("Failed")
    found["status"]["conditions"][0]["status"] = "False"
    assert (has_ended(found), has_ended(job()), has_ended(job("Complete"))) == (None, None, "Complete")
    assert find_of_job({}, []).kind == "disrupted"


def test_kubernetes_starts_again_what_was_disrupted_and_nothing_else() -> None:
    made = indexed({"metadata": {"name": "n", "namespace": "r", "labels": {}},
                    "spec": {"activeDeadlineSeconds": 1, "containers": [{"env": []}]}}, 3)["spec"]  # fmt: skip
    ignored = made["podFailurePolicy"]["rules"]
    assert {rule["action"] for rule in ignored} == {"Ignore"}
    assert ignored[0]["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert ignored[1]["onExitCodes"]["values"] == [143]
    assert (made["backoffLimit"], made["completionMode"], made["parallelism"]) == (0, "Indexed", 3)


@pytest.mark.parametrize(("answers", "seconds"), [(["at work", "over"], 60), (["gone"], 60), ([], 0)])
def test_the_trigger_fires_at_the_end_and_now_and_then(
    monkeypatch: pytest.MonkeyPatch, answers: list[str], seconds: float
) -> None:
    found = {"at work": job(), "over": job("Complete")}
    asked: list[str] = []

    class Hook:
        def __init__(self, conn_id: str | None) -> None:
            assert conn_id == "cluster"

        async def get_job_status(self, name: str, namespace: str) -> Any:
            asked.append(name)
            answer = answers[len(asked) - 1]
            if answer == "gone":
                raise ApiException(status=404)
            return model(found[answer], "V1Job")

    monkeypatch.setattr(stepjob, "AsyncKubernetesHook", Hook)
    monkeypatch.setattr(stepjob, "SETTLE_SECONDS", 0)
    kind, facts = JobTrigger(name=NAME, namespace="n", connection="cluster", poll=0, log_seconds=seconds).serialize()
    assert kind == "cl_steps.orchestration.pods.stepjob.JobTrigger"

    async def first() -> Any:
        return await anext(JobTrigger(**facts).run())

    assert asyncio.run(first()).payload == {"name": NAME}
    assert len(asked) == len(answers)
