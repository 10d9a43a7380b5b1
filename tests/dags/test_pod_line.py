"""A line of pods as its DAG is built: of every task the pool, the role, and the Secrets that its pod gets.

`test_pods.py` looks at the pods that a runner makes; here it is the DAG that asks for them.
"""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes.client import ApiClient

from cl_steps.orchestration.line_dag import build
from cl_steps.orchestration.pods.stepjob import StepJob
from cl_steps.orchestration.pods.steppod import StepPod
from cl_steps.orchestration.registry import Entry
from cl_steps.pipeline import STEPS
from tests.dags.test_pods import LARGE, WIDE

GPU = {name for name, step in STEPS.items() if step.device == "gpu"}
TRUSTED = {"promote", "close", "answer"}
SIGNS = {"promote", "answer"}
PODS = {*STEPS, "answer", "page"}


def tasks_of(entry: Entry) -> dict[str, Any]:
    """The tasks of a line's DAG by name; its GPU steps wait in a pool."""
    profile = entry.profile.model_copy(update={"pool": "gpus"})
    return dict(build(entry.model_copy(update={"profile": profile})).task_dict)


def manifest_of(task: Any) -> dict[str, Any]:
    """What Kubernetes is given for a task."""
    if isinstance(task, StepJob):
        return dict(task.job_manifest(dry_run=True)["spec"]["template"])
    return dict(ApiClient().sanitize_for_serialization(task.build_pod_request_obj(dry_run=True)))


def secrets_of(task: Any) -> dict[str, str]:
    volumes = manifest_of(task)["spec"]["volumes"]
    return {volume["name"]: volume["secret"]["secretName"] for volume in volumes if "secret" in volume}


@pytest.fixture(scope="module", params=[LARGE, WIDE], ids=["one node", "two nodes"])
def tasks(request: pytest.FixtureRequest) -> dict[str, Any]:
    return tasks_of(request.param)


def test_steps_answer_and_page_are_pods_and_all_else_is_airflows_own(tasks: dict[str, Any]) -> None:
    assert {name for name, task in tasks.items() if isinstance(task, StepPod)} == PODS


def test_gpu_steps_wait_in_the_profiles_pool_and_nothing_else_does(tasks: dict[str, Any]) -> None:
    assert {"update", "evaluate"} <= GPU
    assert {name: task.pool for name, task in tasks.items()} == {
        name: "gpus" if name in GPU else "default_pool" for name in tasks
    }


def test_what_writes_main_has_the_trusted_secret_and_the_label_and_nothing_else_has(tasks: dict[str, Any]) -> None:
    roles = {name: manifest_of(tasks[name])["metadata"]["labels"]["retain.dev/role"] for name in PODS}
    assert {name for name, role in roles.items() if role == "trusted"} == TRUSTED
    found = {name: secrets_of(tasks[name])["credentials"] for name in PODS}
    assert found == {name: "large-trusted" if name in TRUSTED else "large-step" for name in PODS}


def test_who_signs_for_main_has_that_key_and_nobody_else(tasks: dict[str, Any]) -> None:
    signing = {name for name in PODS if "large-signing" in secrets_of(tasks[name]).values()}
    assert signing == SIGNS
    told = {name for name in PODS if "RETAIN_SIGNING_KEY" in environment_of(tasks[name])}
    assert told == SIGNS


def environment_of(task: Any) -> set[str]:
    [container] = manifest_of(task)["spec"]["containers"]
    return {variable["name"] for variable in container["env"]}


def test_each_pod_does_what_its_task_is_called(tasks: dict[str, Any]) -> None:
    for name in PODS:
        pod = manifest_of(tasks[name])
        assert pod["metadata"]["labels"]["retain.dev/step"] == name
        [container] = pod["spec"]["containers"]
        wanted = {"answer": "{{ ti.xcom_pull(task_ids='ask')['command'] }}", "page": "report"}.get(name, "step")
        assert container["args"][0] == wanted
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) is (name in GPU)
