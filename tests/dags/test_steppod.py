"""What a pod's end makes of its task; the pods themselves really run in tests/cluster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, TaskDeferred
from kubernetes.client import ApiClient, V1Pod
from kubernetes.client.exceptions import ApiException

from cl_steps.orchestration.pods.steppod import MAX_DISRUPTIONS, StepPod
from cl_steps.orchestration.runners import runner_of
from cl_steps.pipeline import STEPS
from tests.dags.test_failures import EVICTED, NO_ROOM, ended
from tests.dags.test_pods import LARGE, RUN

EVENT = {"name": "a", "namespace": "retain", "status": "failed", "message": "pod failed"}


class Store(dict[str, Any]):
    """As Airflow's task state: it outlives the tries of a task."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


@pytest.fixture
def store() -> Store:
    return Store()


def task(name: str = "update") -> StepPod:
    made = runner_of(LARGE).task(STEPS[name], RUN)
    assert isinstance(made, StepPod)
    return made


def after(monkeypatch: pytest.MonkeyPatch, store: Store, last: dict[str, Any] | None) -> BaseException:
    """What the task raises when the library found its pod in this last state and failed."""
    step = task()

    def reentry(self: StepPod, context: Any, event: Any) -> None:
        self._last = last
        raise AirflowException("the library's own words, with the whole pod in them")

    def execute(self: StepPod, context: Any) -> None:
        raise TaskDeferred(trigger=None, method_name="trigger_reentry")  # type: ignore[arg-type]

    monkeypatch.setattr(KubernetesPodOperator, "trigger_reentry", reentry)
    monkeypatch.setattr(KubernetesPodOperator, "execute", execute)
    with pytest.raises((AirflowException, TaskDeferred, AirflowSkipException)) as caught:
        step.trigger_reentry({"task_state_store": store}, EVENT)  # type: ignore[typeddict-item]
    return caught.value


def parts(store: Store) -> str | None:
    """What the next pod is told about its batches."""
    step = task()
    step.client = None
    context: Any = {"task_state_store": store, "ti": TI, "run_id": "r", "dag": None}
    pod = ApiClient().sanitize_for_serialization(step.build_pod_request_obj(context, dry_run=True))
    found = {variable["name"]: variable.get("value") for variable in pod["spec"]["containers"][0]["env"]}
    return found.get("RETAIN_MICRO_BATCHES")


TI = SimpleNamespace(dag_id="d", task_id="update", map_index=-1, try_number=2)


def test_out_of_memory_halves_the_batches_of_the_next_try_each_time(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    assert parts(store) is None
    for expected in ("2", "4"):
        error = after(monkeypatch, store, ended(137, "OOMKilled"))
        assert type(error) is AirflowException
        assert f"in {expected} parts" in str(error)
        assert parts(store) == expected


@pytest.mark.parametrize("last", [EVICTED, None], ids=["evicted", "gone"])
def test_a_disruption_goes_on_in_a_new_pod_and_costs_no_try(
    monkeypatch: pytest.MonkeyPatch, store: Store, last: Any
) -> None:
    assert isinstance(after(monkeypatch, store, last), TaskDeferred)


def test_endless_disruptions_end(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    store["retain_disruptions"] = MAX_DISRUPTIONS
    assert type(after(monkeypatch, store, EVICTED)) is AirflowException


def test_what_a_retry_would_find_again_fails_at_once_in_the_steps_own_words(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    error = after(monkeypatch, store, ended(2, message="retain step: mend params.yaml"))
    assert isinstance(error, AirflowFailException)
    assert str(error) == "retain step: mend params.yaml"
    assert isinstance(after(monkeypatch, store, ended(4)), AirflowSkipException)
    assert type(after(monkeypatch, store, NO_ROOM)) is AirflowException


def test_a_pod_that_kubernetes_refuses_fails_the_task(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    def execute(self: StepPod, context: Any) -> None:
        raise ApiException(status=403, reason="Forbidden")

    monkeypatch.setattr(KubernetesPodOperator, "execute", execute)
    with pytest.raises(AirflowFailException, match="refuses the pod"):
        task().execute({"task_state_store": store})  # type: ignore[typeddict-item]


def test_a_worker_that_is_ended_leaves_its_pod_at_work() -> None:
    step = task()
    deleted: list[str] = []
    step.client = SimpleNamespace(delete_namespaced_pod=lambda **facts: deleted.append(facts["name"]))
    step.pod = V1Pod(metadata={"name": "a", "namespace": "retain"})
    step.on_kill()
    assert deleted == []


def test_close_ends_the_pods_that_are_left_before_it_begins(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    step, deleted, asked = task("close"), [], []
    pods = [SimpleNamespace(metadata=SimpleNamespace(name=name)) for name in ("a", "b")]

    def listed(namespace: str, label_selector: str) -> Any:
        asked.append((namespace, label_selector))
        return SimpleNamespace(items=pods)

    step.client = SimpleNamespace(list_namespaced_pod=listed)
    step.pod_manager = SimpleNamespace(delete_pod=lambda pod: deleted.append(pod.metadata.name))
    monkeypatch.setattr(KubernetesPodOperator, "execute", lambda self, context: None)
    step.execute({"task_state_store": store})  # type: ignore[typeddict-item]
    assert deleted == ["a", "b"]
    assert asked == [("retain", step.reaps)]


def test_a_try_that_airflow_lost_leaves_no_pod_to_the_next(store: Store) -> None:
    step, deleted, asked = task("close"), [], []

    def listed(namespace: str, label_selector: str) -> Any:
        asked.append(label_selector)
        return SimpleNamespace(items=[SimpleNamespace(metadata=SimpleNamespace(name="a"))])

    step.client = SimpleNamespace(list_namespaced_pod=listed)
    step.pod_manager = SimpleNamespace(delete_pod=lambda pod: deleted.append(pod.metadata.name))
    ti = SimpleNamespace(dag_id="retain_rollback", task_id="rollback", run_id="manual", try_number=2, map_index=-1)
    dag = SimpleNamespace(dag_id="retain_rollback")
    step.forget({"ti": ti, "dag": dag, "run_id": "manual", "task_state_store": store})  # type: ignore[typeddict-item]
    assert deleted == ["a"]
    [selector] = asked
    assert {"dag_id=retain_rollback", "task_id=rollback", "run_id=manual"} <= set(selector.split(","))
    assert "try_number" not in selector


def test_nothing_of_the_pods_environment_is_printed_and_no_sidecar_added() -> None:
    for name in STEPS:
        step = task(name)
        assert (step.log_pod_spec_on_failure, step.do_xcom_push) == (False, False)
        assert step.deferrable
        assert step.execution_timeout is None
