"""What became of a pod: each way in which it can end, as Kubernetes writes it, and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from cl_steps.orchestration.endings import todo_of
from cl_steps.orchestration.pods.failures import find, refused


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    return {"status": {"phase": "Failed", "containerStatuses": [{"name": "step", "state": state}]}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"status": {"phase": "Pending", "containerStatuses": [{"name": "step", "state": state}]}}


def condition(kind: str, status: str, reason: str, message: str) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


NO_ROOM = {
    "status": {
        "phase": "Pending",
        "conditions": [condition("PodScheduled", "False", "Unschedulable", "0/3 nodes: Insufficient nvidia.com/gpu")],
    }
}
EVICTED = {"status": {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}}
SCRATCH_FULL = {
    "status": {**EVICTED["status"], "message": 'Container step exceeded its local ephemeral storage limit "1". '}
}
SHRUNK = ended(143)
SHRUNK["status"] |= {"phase": "Failed", "reason": "OutOfmemory", "message": "Pod was rejected: Node didn't have enough"}
PREEMPTED = ended(143)
PREEMPTED["status"]["conditions"] = [
    condition("DisruptionTarget", "True", "PreemptionByScheduler", "preempting to accommodate a higher priority pod")
]
DEADLINE = {"spec": {"activeDeadlineSeconds": 7200}, "status": {"phase": "Failed", "reason": "DeadlineExceeded"}}


@pytest.mark.parametrize(
    ("pod", "kind", "todo", "words"),
    [
        (ended(137, "OOMKilled"), "memory", "smaller", "memory"),
        (EVICTED, "disrupted", "resume", "low on resource"),
        (SHRUNK, "disrupted", "resume", "rejected"),
        (PREEMPTED, "disrupted", "resume", "higher priority"),
        (DEADLINE, "deadline", "fail", "2 hours"),
        (SCRATCH_FULL, "storage", "fail", "raise scratch"),
        (waiting("ImagePullBackOff", "no such image"), "image", "fail", "no such image"),
        (waiting("ImagePullBackOff", 'Back-off pulling image "registry.example/a"'), "registry", "again", "Back-off"),
        (waiting("InvalidImageName"), "image", "fail", "InvalidImageName"),
        (waiting("CreateContainerConfigError", "secret x not found"), "start", "fail", "secret x"),
        (NO_ROOM, "start", "again", "nvidia.com/gpu"),
        (waiting("CreateContainerError", "context deadline exceeded"), "start", "again", "deadline exceeded"),
        (waiting("ContainerCreating"), "start", "again", "ContainerCreating"),
        ({"status": {"phase": "Pending"}}, "start", "again", "not ready"),
        (ended(2, message="step\nretain step: params.yaml has an unknown key"), "step", "fail", "unknown key"),
        (ended(3), "step", "fail", "exit code 3"),
        (ended(5), "integrity", "fail", "exit code 5"),
        (ended(4, message="trigger a new run"), "step", "skip", "new run"),
        (ended(6, message="the store is away"), "step", "again", "store"),
        (ended(1), "step", "again", "exit code 1"),
        (ended(137), "killed", "again", "from outside"),
        (ended(143), "killed", "again", "from outside"),
        (None, "disrupted", "resume", "gone"),
        ({"status": {"phase": "Failed", "message": "odd"}}, "killed", "again", "odd"),
    ],
)
def test_each_end_has_its_answer(pod: dict[str, Any] | None, kind: str, todo: str, words: str) -> None:
    finding = find(pod)
    assert (finding.kind, finding.todo) == (kind, todo)
    assert words in finding.sentence


IMAGE = 'failed to pull and unpack image "registry.example/timeout-denied/steps:1": '
HEAD = IMAGE + 'failed to do request: Head "https://registry.example/v2/not-found/manifests/1": '


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff"])
@pytest.mark.parametrize(
    "message",
    [
        "dial tcp 192.0.2.5:443: connect: connection refused",
        "lookup registry.example: no such host",
        "429 Too Many Requests",
        "unexpected status 503 Service Unavailable",
        HEAD + "dial tcp: lookup registry.example on 10.96.0.10:53: server misbehaving",
        HEAD + "dial tcp 192.0.2.5:443: i/o timeout",
        HEAD + "net/http: TLS handshake timeout",
        HEAD + "tls: failed to verify certificate: x509: certificate has expired or is not yet valid",
        HEAD + "read: connection reset by peer",
        HEAD + "EOF",
        IMAGE + "unexpected status from HEAD request to https://registry.example/v2/: 500 Internal Server Error",
        IMAGE + "failed to authorize: failed to fetch oauth token: unexpected status from GET request: 502 Bad Gateway",
        "toomanyrequests: You have reached your pull rate limit.",
        "rpc error: code = DeadlineExceeded desc = context deadline exceeded",
        "rpc error: code = Unknown desc = failed to extract layer: write: no space left on device: unknown",
        "",
    ],
)
def test_a_registry_that_is_away_is_asked_again(reason: str, message: str) -> None:
    finding = find(waiting(reason, message))
    assert (finding.kind, finding.todo) == ("registry", "again")


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff"])
@pytest.mark.parametrize(
    "message",
    [
        "manifest unknown: not found",
        IMAGE + "registry.example/timeout-denied/steps:1: not found",
        "rpc error: code = NotFound desc = " + IMAGE + "not found",
        IMAGE + "pull access denied, repository does not exist or may require authorization",
        IMAGE + "unexpected status from HEAD request to https://registry.example/v2/: 403 Forbidden",
        IMAGE + "failed to fetch anonymous token: unexpected status from GET request: 401 Unauthorized",
        "no matching manifest for linux/arm64/v8 in the manifest list entries",
        "no match for platform in manifest: not found",
    ],
)
def test_an_image_that_is_not_there_or_not_ours_is_not(reason: str, message: str) -> None:
    finding = find(waiting(reason, message))
    assert (finding.kind, finding.todo) == ("image", "fail")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Pod ephemeral local storage usage exceeds the total limit of containers 20Gi. ", "raise scratch in"),
        ('Usage of EmptyDir volume "scratch" exceeds the limit "20Gi". ', "raise scratch in"),
        ('Usage of EmptyDir volume "shm" exceeds the limit "2Gi". ', "raise shm of its gpu_step"),
        ('Usage of EmptyDir volume "checks" exceeds the limit "1Gi". ', "raise scratch of its checks"),
    ],
)
def test_who_broke_its_own_limit_is_told_which_and_not_resumed(message: str, words: str) -> None:
    finding = find({"status": {"phase": "Failed", "reason": "Evicted", "message": message}})
    assert (finding.kind, finding.todo) == ("storage", "fail")
    assert words in finding.sentence


def test_a_node_that_is_full_is_a_disruption_whoever_filled_it() -> None:
    said = "The node was low on resource: ephemeral-storage. Container step was using 5Gi, request is 20Gi"
    assert find({"status": {"phase": "Failed", "reason": "Evicted", "message": said}}).todo == "resume"


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        (255, "Error", "exec /usr/bin/tini: exec format error"),
        (1, "Error", "standard_init_linux.go:228: exec user process caused: exec format error"),
        (128, "StartError", 'OCI runtime create failed: exec: "retain": executable file not found in $PATH: unknown'),
        (127, "ContainerCannotRun", "no such file or directory"),
        (127, "Error", "entrypoint: line 3: retain: not found"),
    ],
)
def test_a_command_that_this_machine_cannot_run_is_not_tried_again(code: int, reason: str, message: str) -> None:
    finding = find(ended(code, reason, message))
    assert (finding.kind, finding.todo) == ("start", "fail")
    assert message in finding.sentence


def test_a_drained_pod_whose_step_said_what_is_wrong_goes_on_from_its_checkpoint_all_the_same() -> None:
    pod = ended(143, message="asked to stop")
    pod["status"]["conditions"] = [condition("DisruptionTarget", "True", "EvictionByEvictionAPI", "")]
    assert find(pod).todo == "resume"


def test_what_the_checks_container_waits_for_is_what_its_step_waits_for() -> None:
    pod = waiting("PodInitializing")
    beside = {"name": "checks", "state": {"waiting": {"reason": "ErrImagePull", "message": "manifest unknown"}}}
    pod["status"]["initContainerStatuses"] = [beside]
    assert (find(pod).kind, find(pod).todo) == ("image", "fail")
    beside["state"] = {"running": {}}
    assert (find(pod).kind, find(pod).todo) == ("start", "again")
    pod = ended(5)
    pod["status"]["initContainerStatuses"] = [{"name": "checks", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]
    assert find(pod).kind == "integrity"


def test_other_containers_do_not_count() -> None:
    pod = ended(0)
    state = {"terminated": {"exitCode": 2}}
    pod["status"]["containerStatuses"].insert(0, {"name": "proxy", "state": state})
    pod["status"]["containerStatuses"][1]["state"]["terminated"]["exitCode"] = 6
    assert find(pod).todo == "again"


def test_the_exit_codes_are_those_of_the_errors() -> None:
    found = {code: todo_of(code) for code in (0, 1, 2, 3, 4, 5, 6, -9, 130)}
    assert [code for code, todo in found.items() if todo == "fail"] == [2, 3, 5]
    assert (found[0], found[4], found[6], found[-9]) == ("done", "skip", "again", "again")


@pytest.mark.parametrize(
    ("status", "message", "todo"),
    [
        (403, 'pods "a" is forbidden: violates PodSecurity "restricted:latest"', "fail"),
        (403, 'pods "a" is forbidden: exceeded quota: retain, requested: limits.cpu=4', "again"),
        (404, 'namespaces "retain" not found', "fail"),
        (422, "Invalid value", "fail"),
        (503, "etcd leader changed", "again"),
        (None, "connection refused", "again"),
    ],
)
def test_a_mistake_in_a_pod_fails_and_a_full_house_waits(status: int | None, message: str, todo: str) -> None:
    assert refused(status, message).todo == todo


def test_the_answer_of_kubernetes_is_read() -> None:
    body = '{"kind": "Status", "message": "violates PodSecurity", "details": {}}'
    assert refused(403, body).sentence == "Kubernetes refuses the pod (403): violates PodSecurity"
