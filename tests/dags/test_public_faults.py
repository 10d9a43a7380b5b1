"""Faults of Airflow that others reported, by their numbers, and what is done about each here.

Each test plays the report's own story against a small API server (`api_server.py`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk.exceptions import TaskDeferred
from kubernetes.client import ApiClient, BatchV1Api, Configuration, CoreV1Api
from kubernetes.config import kube_config
from kubernetes_asyncio.config import kube_config as async_kube_config

from cl_steps.orchestration.asking import FORM, Ask
from cl_steps.orchestration.line_dag import build
from cl_steps.orchestration.pods import steppod
from cl_steps.orchestration.pods.stepjob import JobTrigger
from cl_steps.orchestration.pods.steppod import StepTrigger
from cl_steps.orchestration.reap import reap
from cl_steps.orchestration.registry import Entry
from cl_steps.orchestration.runners import runner_of
from cl_steps.pipeline import STEPS
from cl_steps.steps import close, promote
from tests.dags.api_server import ApiServer, serving
from tests.dags.test_pods import LARGE, RUN, WIDE
from tests.dags.test_steppod import Store
from tests.lines.small import GOOD, make_workspace, play


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with serving(tmp_path) as found:
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        for module in (kube_config, async_kube_config):
            monkeypatch.setattr(module, "KUBE_CONFIG_DEFAULT_LOCATION", os.environ["KUBECONFIG"])
        yield found


def context(store: Store, number: int = 1) -> Any:
    ti = SimpleNamespace(
        dag_id="retain_line", task_id="update", try_number=number, map_index=-1, xcom_push=lambda **_: None
    )
    return {"task_state_store": store, "ti": ti, "run_id": "r", "dag": SimpleNamespace()}


def begun(entry: Any, store: Store, number: int = 1) -> Any:
    """The trigger that the update of a line hands to the triggerer, in a process of its own."""
    with pytest.raises(TaskDeferred) as caught:
        runner_of(entry).task(STEPS["update"], RUN).execute(context(store, number))
    return caught.value.trigger


def ended(code: int) -> list[dict[str, Any]]:
    state = {"terminated": {"exitCode": code, "reason": "Error", "message": "said"}}
    return [{"name": "step", "state": state, "image": "i", "imageID": "i", "ready": False, "restartCount": 0}]


def test_53015_an_evicted_pod_is_not_taken_up_again(server: ApiServer) -> None:
    """There a retry found the evicted pod by its labels, and failed at its log: "container not found"."""
    store = Store()
    first = begun(LARGE, store).pod_name
    server.set_pod(first, phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
    # Its worker and its triggerer are gone, too: nobody cleaned up, and a retry begins.
    assert begun(LARGE, store, number=2).pod_name != first
    assert len(server.pods) == 1


def test_53015_an_eviction_costs_no_try_at_all(server: ApiServer) -> None:
    store = Store()
    first = begun(LARGE, store).pod_name
    server.set_pod(first, phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
    event = {"name": first, "namespace": "retain", "status": "failed", "message": "pod failed"}
    with pytest.raises(TaskDeferred) as caught:
        runner_of(LARGE).task(STEPS["update"], RUN).trigger_reentry(context(store), event)
    assert caught.value.trigger.pod_name != first
    assert list(server.pods) == [caught.value.trigger.pod_name]


def test_57553_pods_that_ended_while_airflow_was_away_do_not_stay(server: ApiServer) -> None:
    """There completed pods stayed for ever once a scheduler was replaced: only it had known of them."""
    name = begun(LARGE, Store()).pod_name
    server.set_pod(name, phase="Succeeded", containerStatuses=ended(0))
    finished = {"terminated": {"exitCode": 0, "finishedAt": "2026-01-01T01:00:00Z"}}
    server.pods[name]["status"]["containerStatuses"][0]["state"] = finished
    client = ApiClient(Configuration(host=server.url))
    assert reap(CoreV1Api(client), BatchV1Api(client), "retain", timedelta(hours=24)) == [name]
    assert server.pods == {}


def test_57553_what_the_database_forgot_is_ended_with_its_run(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = begun(LARGE, Store()).pod_name
    server.set_pod(name, phase="Succeeded", containerStatuses=ended(0))
    monkeypatch.setattr(KubernetesPodOperator, "execute", lambda self, context: None)
    runner_of(LARGE).task(STEPS["close"], RUN).execute(context(Store()))
    assert server.pods == {}


def test_58496_a_job_whose_pods_take_their_time_gets_none_from_us(server: ApiServer) -> None:
    """There the operator looked for the Job's pod, found none yet, and made one of its own beside it."""
    store = Store()
    name = begun(WIDE, store).facts["name"]
    assert (list(server.jobs), server.pods) == ([name], {})
    with pytest.raises(TaskDeferred):
        runner_of(WIDE).task(STEPS["update"], RUN).trigger_reentry(context(store), {"name": name})
    # A retry that comes before the first pod does, either.
    assert begun(WIDE, store, number=2).facts["name"] == name
    assert (list(server.jobs), server.pods) == ([name], {})
    assert server.count("POST", "pods") == 0


@pytest.mark.parametrize("entry", [LARGE, WIDE], ids=["a pod", "a job"])
def test_62398_what_a_person_ends_while_it_is_deferred_ends(server: ApiServer, entry: Any) -> None:
    """There a task was marked as failed, its trigger gone, and the pod went on for ever."""
    trigger = begun(entry, Store())
    kind, facts = trigger.serialize()
    assert len(server.pods) + len(server.jobs) == 1
    # As the triggerer does: it makes the trigger anew, and calls this where a person acted on the task.
    made = {"StepTrigger": StepTrigger, "JobTrigger": JobTrigger}[kind.rpartition(".")[2]](**facts)
    asyncio.run(made.on_kill())
    assert (server.pods, server.jobs) == ({}, {})


def test_62398_and_close_ends_what_is_left_of_its_run(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(WIDE, Store())
    begun(WIDE.model_copy(update={"profile": LARGE.profile}), Store())
    assert (len(server.pods), len(server.jobs)) == (1, 1)
    monkeypatch.setattr(KubernetesPodOperator, "execute", lambda self, context: None)
    runner_of(WIDE).task(STEPS["close"], RUN).execute(context(Store()))
    assert (server.pods, server.jobs) == ({}, {})


def test_71580_no_trigger_fires_before_its_task_is_seen_to_wait(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a trigger fired at once, the scheduler heard of it before it heard that the task waits, and failed it."""
    slept: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)
    store = Store()
    single = begun(LARGE, store)
    server.set_pod(single.pod_name, phase="Failed", containerStatuses=ended(2))
    job = begun(WIDE, Store())
    server.jobs[job.facts["name"]]["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}

    async def first(trigger: Any) -> Any:
        return await anext(trigger.run())

    for trigger in (single, job):
        slept.clear()
        event = asyncio.run(first(trigger)).payload
        assert event["name"]
        assert slept[0] == steppod.SETTLE_SECONDS >= 5


@pytest.mark.parametrize("entry", [LARGE, WIDE], ids=["a pod", "a job"])
def test_71580_a_try_that_airflow_lost_leaves_its_pod_to_the_next(server: ApiServer, entry: Any) -> None:
    store = Store()
    first, second = begun(entry, store), begun(entry, store, number=2)
    assert first.serialize()[1].get("pod_name") == second.serialize()[1].get("pod_name")
    assert len(server.pods) + len(server.jobs) == 1


def test_71580_an_answer_that_airflow_lost_is_asked_for_again_whatever_the_line_says_of_retries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promote, "_check_figures", lambda *_: None)
    line = make_workspace(tmp_path / "line")
    play(line, "r-2", {**GOOD, "gate": "inconclusive"})
    assert close.run(line, "r-2") == "held"
    entry = Entry(name="a", workspace=str(Path(line.git).parents[1]), retries=0)
    assert build(entry).get_task("ask").retries >= 3
    asked: list[str] = []
    monkeypatch.setattr(HITLOperator, "execute", lambda operator, _: asked.append(operator.run))
    for _ in range(2):
        Ask(task_id="ask", entry=entry, run="r-2", params=FORM).execute({})  # type: ignore[typeddict-item]
    assert asked == ["r-2", "r-2"]
