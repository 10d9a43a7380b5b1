"""Where a step waits its turn, and what it can reach: with Kueue, and with a network that enforces policies."""

from __future__ import annotations

import json
import time

import pytest

from tests.cluster.airflow import Airflow
from tests.cluster.site import NAMESPACE, Site, kubectl
from tests.cluster.trial import land, last, nothing_is_left, running_pod

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]


def test_a_step_waits_in_its_queue_and_is_taken_out_of_it(place: Site, airflow: Airflow) -> None:
    if not place.kueue:
        pytest.skip("no Kueue on this cluster")
    land(place, "queued", 2)
    with running_pod("filler", "900m", {"kueue.x-k8s.io/queue-name": "retain"}, "sleep", "600"):
        run = airflow.trigger("queued")
        gated = wait_for_gate(place)
    pod = place.wait_for_pod("queued", "update")
    assert pod == gated
    place.wait_for_log(pod, "update: steps")
    stop_workload(pod)
    place.wait_for_other_pod("queued", "update", pod)
    assert airflow.wait("queued", run) == "success", airflow.tasks("queued", run)
    assert last(place, "queued").outcome == "promoted"
    assert airflow.tasks("queued", run)["update"] == ("success", 1)
    nothing_is_left(place, "queued")


def wait_for_gate(place: Site, seconds: float = 600) -> str:
    """The name of the update's pod, once Kueue holds it back, and still does a while later."""
    end, seen = time.monotonic() + seconds, 0
    while seen < 5:
        assert time.monotonic() < end
        time.sleep(2)
        pods = place.pods("retain.dev/line=queued,retain.dev/step=update")
        seen += len([pod for pod in pods if pod["spec"].get("schedulingGates")])
    return str(pods[0]["metadata"]["name"])


def stop_workload(pod: str) -> None:
    """As Kueue does for one of higher priority: the pod is taken off, and may queue again."""
    found = json.loads(kubectl("-n", NAMESPACE, "get", "workloads.kueue.x-k8s.io", "-o", "json"))["items"]
    [name] = [item["metadata"]["name"] for item in found if item["metadata"]["ownerReferences"][0]["name"] == pod]
    patch = json.dumps({"spec": {"active": False}})
    kubectl("-n", NAMESPACE, "patch", "workloads.kueue.x-k8s.io", name, "--type=merge", "-p", patch)


KNOCK = """
import socket, sys, time
time.sleep(5)
for place in sys.argv[1:]:
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
        print(place, "open", flush=True)
    except OSError:
        print(place, "closed", flush=True)
print("done", flush=True)
time.sleep(600)
"""


def knocked(place: Site, labels: dict[str, str], *places: str) -> list[str]:
    """Which of the places a pod with such labels can reach."""
    with running_pod("knock", "10m", labels, "python", "-c", KNOCK, *places):
        place.wait_for_log("knock", "done")
        said = kubectl("-n", NAMESPACE, "logs", "knock").splitlines()
    return [line.removesuffix(" open") for line in said if line.endswith(" open")]


def test_a_step_reaches_git_and_the_store_and_nothing_else(place: Site) -> None:
    git, s3 = (url.removeprefix("http://") for url in (place.git, place.s3))
    address = "jsonpath={.items[0].endpoints[0].addresses[0]}:{.items[0].ports[0].port}"
    api = kubectl(
        "-n", "default", "get", "endpointslices", "-l", "kubernetes.io/service-name=kubernetes", "-o", address
    )
    if knocked(place, {"app": "stranger"}, git):
        pytest.skip("this cluster's network enforces no policies")
    labels = {"app.kubernetes.io/part-of": "retain", "app.kubernetes.io/component": "step"}
    assert knocked(place, labels, git, s3, api, f"{place.node}:10250") == [git, s3]
