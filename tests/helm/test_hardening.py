"""Every container that the chart starts, in every case: no privilege, no token, no secret, nothing unbounded."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.helm.chart import CASES, case, manifests, named, pods

TOKENS = {"retain-reaper"}
"""What asks Kubernetes for something; nobody else holds a token of its API."""


def containers(name: str) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Where it stands, its pod and itself, of every container of a case."""
    found = [
        (f"{owner}/{container['name']}", pod, container)
        for owner, pod in pods(manifests(case(name)))
        for container in pod.get("initContainers", []) + pod["containers"]
    ]
    assert len(found) >= 3
    return found


@pytest.mark.parametrize("name", CASES)
def test_no_container_has_privileges(name: str) -> None:
    for where, pod, container in containers(name):
        security = {**pod["securityContext"], **container["securityContext"]}
        assert security["runAsNonRoot"] is True, where
        assert security["runAsUser"] > 0, where
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert security["allowPrivilegeEscalation"] is False, where
        assert security["readOnlyRootFilesystem"] is True, where
        assert security["capabilities"] == {"drop": ["ALL"]}, where
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(pod), where


@pytest.mark.parametrize("name", CASES)
def test_every_container_is_bounded(name: str) -> None:
    for where, pod, container in containers(name):
        assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"]["limits"]), where
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]), where
        assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume), where


@pytest.mark.parametrize("name", CASES)
def test_no_image_is_latest(name: str) -> None:
    for where, _, container in containers(name):
        assert re.search(r"(@sha256:[0-9a-f]{64}|:(?!latest$)[\w][\w.-]*)$", container["image"]), where


@pytest.mark.parametrize("name", CASES)
def test_only_the_reaper_holds_a_token(name: str) -> None:
    found = manifests(case(name))
    for owner, pod in pods(found):
        assert pod["automountServiceAccountToken"] is (owner in TOKENS), owner
        assert pod["enableServiceLinks"] is False, owner
    accounts = named(found, "ServiceAccount")
    assert {name for name, account in accounts.items() if account["automountServiceAccountToken"]} == {"retain-airflow"}


@pytest.mark.parametrize("name", CASES)
def test_secrets_are_mounted_read_only_and_never_written_down(name: str) -> None:
    assert named(manifests(case(name)), "Secret") == {}
    for where, pod, container in containers(name):
        assert all("valueFrom" not in variable for variable in container["env"]), where
        assert not re.search(r"(?i)password|token|secret_|access_key", str(container["env"])), where
        modes = {volume["name"]: volume["secret"]["defaultMode"] for volume in pod["volumes"] if "secret" in volume}
        assert set(modes.values()) <= {0o440}, where
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert all(mounts[volume].get("readOnly") for volume in modes), where


@pytest.mark.parametrize("name", CASES)
def test_only_scratch_can_be_written(name: str) -> None:
    for where, pod, container in containers(name):
        kinds = {volume["name"]: set(volume) - {"name"} for volume in pod["volumes"]}
        assert set(kinds) == {mount["name"] for mount in container["volumeMounts"]}, where
        writable = [mount for mount in container["volumeMounts"] if not mount.get("readOnly")]
        scratch = [(mount["mountPath"], kinds[mount["name"]]) for mount in writable]
        if where == "retain-watch/watch" and name == "full":
            assert scratch.pop() == ("/heads", {"persistentVolumeClaim"})
        assert scratch in ([("/scratch", {"emptyDir"})], [("/tmp", {"emptyDir"})]), where


def test_the_namespace_enforces_restricted() -> None:
    labels = named(manifests(case("full")), "Namespace")["retain"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert labels["pod-security.kubernetes.io/enforce-version"] == "v1.36"
    assert named(manifests(case("minimal")), "Namespace") == {}


@pytest.mark.parametrize("name", CASES)
def test_every_cronjob_forbids_overlap_and_has_a_deadline(name: str) -> None:
    found = named(manifests(case(name)), "CronJob")
    assert len(found) >= 2
    for where, job in found.items():
        assert job["spec"]["concurrencyPolicy"] == "Forbid", where
        assert 0 < job["spec"]["startingDeadlineSeconds"] <= 3600, where
        assert 0 < job["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"] <= 7200, where
        assert job["spec"]["jobTemplate"]["spec"]["backoffLimit"] <= 2, where


def test_a_container_that_asks_for_nothing_gets_little() -> None:
    (limits,) = named(manifests(case("minimal")), "LimitRange").values()
    assert limits["spec"]["limits"] == [
        {
            "type": "Container",
            "default": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "10Gi"},
            "defaultRequest": {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "256Mi"},
        }
    ]
