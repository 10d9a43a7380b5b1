"""Kubernetes' API away: refused, reset, hanging up, overloaded. Whoever asks it waits, and nothing is made twice."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from kubernetes.client import ApiClient, Configuration, CoreV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.config import kube_config

from cl_steps.errors import Unavailable
from cl_steps.orchestration import reap
from cl_steps.orchestration.pods import patience, stepjob, steppod
from cl_steps.orchestration.pods.patience import patient
from cl_steps.orchestration.pods.stepjob import JobTrigger
from cl_steps.orchestration.runners import runner_of
from cl_steps.pipeline import STEPS
from tests.dags.api_server import ApiServer, serving
from tests.dags.test_pods import LARGE, RUN, WIDE
from tests.dags.test_steppod import Store

POD = {"metadata": {"name": "a"}, "spec": {"containers": []}}
REFUSED = 0.3
"""Seconds; the client asks every 0.01 to 0.1 s, for at most 5."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """A server that everybody who asks for a cluster finds, with short waits."""
    monkeypatch.setattr(patience.patient, "__defaults__", (5.0, 0.1))
    for module in (steppod, stepjob):
        monkeypatch.setattr(module, "SETTLE_SECONDS", 0)
    with serving(tmp_path) as found:
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", os.environ["KUBECONFIG"])
        yield found


def core(server: ApiServer, seconds: float = 5.0) -> CoreV1Api:
    return CoreV1Api(patient(ApiClient(Configuration(host=server.url)), seconds, 0.1))


def context(store: Store, number: int = 1) -> Any:
    ti = SimpleNamespace(
        dag_id="retain_line", task_id="update", try_number=number, map_index=-1, xcom_push=lambda **_: None
    )
    return {"task_state_store": store, "ti": ti, "run_id": "r", "dag": SimpleNamespace()}


def begun(entry: Any, store: Store, number: int = 1) -> TaskDeferred:
    """The update of a line, handed to the triggerer."""
    with pytest.raises(TaskDeferred) as caught:
        runner_of(entry).task(STEPS["update"], RUN).execute(context(store, number))
    return caught.value


@pytest.mark.parametrize("faults", [["reset"] * 4, [503] * 4, [429, 500, 502, 504], ["reset", 503, "reset"]], ids=str)
def test_it_is_asked_until_it_answers(server: ApiServer, faults: list[int | str]) -> None:
    server.objects["pods"]["a"] = {**POD, "status": {}}
    server.faults = list(faults)
    assert core(server).read_namespaced_pod("a", "retain").metadata.name == "a"
    # urllib3 itself asks again after a reset, unless something was to be done.
    assert server.faults == []


def test_it_is_waited_for_while_nobody_listens(server: ApiServer) -> None:
    server.back_after(REFUSED)
    assert core(server).list_namespaced_pod("retain").items == []


def test_what_was_done_before_the_answer_was_lost_is_found_and_not_done_twice(server: ApiServer) -> None:
    server.faults = ["lost", "reset", 503]
    made = core(server).create_namespaced_pod("retain", POD)
    assert made.metadata.name == "a"
    assert list(server.pods) == ["a"]


def test_a_name_that_somebody_else_has_is_no_success(server: ApiServer) -> None:
    server.pods["a"] = {**POD, "status": {}}
    with pytest.raises(ApiException) as caught:
        core(server).create_namespaced_pod("retain", POD)
    assert caught.value.status == 409
    assert server.count("POST", "pods") == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_mistake_is_none_of_it(server: ApiServer, status: int) -> None:
    server.faults = [status, status]
    with pytest.raises(ApiException) as caught:
        core(server).create_namespaced_pod("retain", POD)
    assert caught.value.status == status
    assert server.count("POST", "pods") == 1


def test_patience_ends_in_one_sentence(server: ApiServer) -> None:
    server.stop()
    with pytest.raises(Unavailable, match=r"away for 0\.005 minutes: .*Connection refused") as caught:
        core(server, seconds=0.3).list_namespaced_pod("retain")
    assert "\n" not in str(caught.value)


def test_a_kubelet_that_is_away_is_not_waited_for(server: ApiServer) -> None:
    server.faults = [500]
    with pytest.raises(ApiException):
        core(server).read_namespaced_pod_log("a", "retain")
    assert server.count("GET", "log") == 1


@pytest.mark.parametrize("entry", [LARGE, WIDE], ids=["a pod", "a job"])
def test_a_step_begins_while_the_api_comes_back(server: ApiServer, entry: Any) -> None:
    server.back_after(REFUSED)
    begun(entry, Store())
    assert (len(server.pods), len(server.jobs)) == ((0, 1) if entry is WIDE else (1, 0))


@pytest.mark.parametrize("entry", [LARGE, WIDE], ids=["a pod", "a job"])
@pytest.mark.parametrize("fault", ["lost", "reset", 503])
def test_whatever_goes_wrong_while_it_begins_there_is_one_of_it(
    server: ApiServer, entry: Any, fault: int | str
) -> None:
    # Each of its requests in turn: the looks for an earlier one, the creation.
    for before in range(3):
        server.pods.clear()
        server.jobs.clear()
        server.faults = [None] * before + [fault, fault, fault]  # type: ignore[list-item]
        begun(entry, Store())
        server.faults = []
        assert len(server.pods) + len(server.jobs) == 1


def reentry(entry: Any, store: Store, event: dict[str, Any]) -> BaseException | None:
    """What the update raises when its trigger fired; None where it ended well."""
    try:
        runner_of(entry).task(STEPS["update"], RUN).trigger_reentry(context(store), event)
    except (AirflowException, TaskDeferred) as raised:
        return raised
    return None


@pytest.fixture
def job(server: ApiServer) -> str:
    """A Job at work, whose nodes said something."""
    name = begun(WIDE, Store()).trigger.facts["name"]
    labels = {"batch.kubernetes.io/job-name": name, "batch.kubernetes.io/job-completion-index": "0"}
    status = {"phase": "Running", "containerStatuses": []}
    metadata = {"name": f"{name}-0", "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"}
    server.pods[f"{name}-0"] = {"metadata": metadata, "spec": {"containers": []}, "status": status}
    server.words[f"{name}-0"] = "2026-01-01T00:00:01Z step 1\n"
    return str(name)


def test_a_job_goes_on_in_its_first_try_while_the_api_is_away(
    server: ApiServer, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.back_after(REFUSED)
    assert isinstance(reentry(WIDE, Store(), {"name": job}), TaskDeferred)
    assert "node 0: step 1" in capsys.readouterr().out
    assert list(server.jobs) == [job]


def test_a_job_that_ended_meanwhile_is_done(server: ApiServer, job: str) -> None:
    server.jobs[job]["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    server.faults = [503, "reset", 503]
    assert reentry(WIDE, Store(), {"name": job}) is None
    assert server.jobs == {}


def test_beyond_patience_the_next_try_finds_the_job_at_work(
    server: ApiServer, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience.patient, "__defaults__", (0.2, 0.1))
    server.stop()
    raised = reentry(WIDE, Store(), {"name": job})
    assert type(raised) is AirflowException
    assert "the next try finds it" in str(raised)
    server.start()
    assert begun(WIDE, Store(), number=2).trigger.facts["name"] == job
    assert list(server.jobs) == [job]


def test_a_pod_goes_on_in_its_first_try_while_the_api_is_away(server: ApiServer) -> None:
    store = Store()
    name = begun(LARGE, store).trigger.pod_name
    running = {"name": "step", "state": {"running": {}}, "image": "i", "imageID": "i", "ready": True, "restartCount": 0}
    server.set_pod(name, phase="Running", containerStatuses=[running])
    event = {"name": name, "namespace": "retain", "status": "error", "message": "the trigger lost sight of it"}
    server.back_after(REFUSED)
    deferred = reentry(LARGE, store, event)
    assert isinstance(deferred, TaskDeferred)
    assert deferred.trigger.pod_name == name
    assert list(server.pods) == [name]


def test_a_refusal_is_still_said_at_once(server: ApiServer) -> None:
    server.faults = [None, 403]  # type: ignore[list-item]
    with pytest.raises(AirflowFailException, match="refuses the pod"):
        runner_of(LARGE).task(STEPS["update"], RUN).execute(context(Store()))


def test_the_trigger_of_a_job_leaves_an_api_that_is_away_to_its_task(
    server: ApiServer, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    async def get_job_status(hook: Any, name: str, namespace: str) -> Any:
        asked.append(1)
        raise ConnectionRefusedError

    monkeypatch.setattr(stepjob.AsyncKubernetesHook, "get_job_status", get_job_status)
    trigger = JobTrigger(name=job, namespace="retain", connection=None, poll=0.01, log_seconds=0.1)

    async def first() -> Any:
        return await anext(trigger.run())

    assert asyncio.run(first()).payload == {"name": job}
    assert len(asked) > 1


def test_the_reaper_waits_too_and_does_not_mind_who_was_faster(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reap, "PATIENCE_SECONDS", 5.0)
    labels = {"app.kubernetes.io/part-of": "retain", "app.kubernetes.io/component": "step"}
    for name in ("a", "b"):
        metadata = {"name": name, "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"}
        server.pods[name] = {"metadata": metadata, "spec": {"containers": []}, "status": {"phase": "Failed"}}
    server.faults = [503, "reset", None, 404]  # type: ignore[list-item]
    assert reap.main(["--namespace", "retain"]) == 0
    assert list(server.pods) == ["a"]
    server.stop()
    monkeypatch.setattr(reap, "PATIENCE_SECONDS", 0.2)
    assert reap.main(["--namespace", "retain"]) == Unavailable.exit_code
    assert "away for" in capsys.readouterr().err
