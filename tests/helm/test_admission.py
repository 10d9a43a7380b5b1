"""The policy on who may mount a key, evaluated: our own pods pass, and nothing else that mounts one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import cel
import pytest

from cl_steps.checks import apart
from cl_steps.orchestration.pods.manifest import Job, manifest
from cl_steps.orchestration.pods.profiles import Profile, Secrets
from cl_steps.pipeline import STEPS
from tests.helm.chart import case, manifests, named, pods

VALUES = case("full")
LINE = VALUES["lines"][0]
SECRETS = Secrets(**LINE["secrets"])
PROFILE = Profile(image=VALUES["images"]["steps"], environment=VALUES["pods"]["environment"])
PLACES = {"RETAIN_STORE_URL": "s3://bucket/first-line"}
COMMANDS = ("approve", "refuse", "rollback", "withdraw", "prune")

Pod = dict[str, Any]


def refusals(pod: Pod) -> list[str]:
    """What the policy has against a pod: the messages, in the words that whoever creates it reads."""
    [policy] = named(manifests(VALUES), "ValidatingAdmissionPolicy").values()
    variables: dict[str, Any] = {}
    for variable in policy["spec"]["variables"]:
        variables[variable["name"]] = cel.evaluate(variable["expression"], {"object": pod, "variables": variables})
    found = {"object": pod, "variables": variables}
    return [rule["message"] for rule in policy["spec"]["validations"] if not cel.evaluate(rule["expression"], found)]


def pod_of(name: str) -> Pod:
    """A step's pod, or one of a command, as Airflow makes it."""
    if name in STEPS:
        job = Job(name, ("step", name), "r", role=STEPS[name].role, signs=name == "promote")
    else:
        job = Job(name, (name, "r"), "r", role="trusted", signs=True)
    return manifest(PROFILE, LINE["name"], SECRETS, PLACES, job)


@pytest.mark.parametrize("name", [*STEPS, *COMMANDS])
def test_our_own_pods_pass(name: str) -> None:
    assert refusals(pod_of(name)) == []


def test_what_the_chart_starts_passes() -> None:
    for name, spec in pods(manifests(VALUES)):
        assert refusals({"spec": spec}) == [], name


def changed(name: str, change: Callable[[Pod, Pod], object]) -> Pod:
    """A pod of ours with a change to its spec and its container."""
    pod = copy.deepcopy(pod_of(name))
    change(pod["spec"], pod["spec"]["containers"][0])
    return pod


def add(place: Pod, key: str, value: Any) -> None:
    place.setdefault(key, []).append(value)


def beside() -> Pod:
    """The checks' container, as the gate's pod has it."""
    [found] = pod_of("gate")["spec"]["initContainers"]
    return dict(found)


HOSTILE: dict[str, Callable[[Pod, Pod], object]] = {
    "another image": lambda _, c: c.update(image="registry.example/mine:1"),
    "the same image by another digest": lambda _, c: c.update(image=c["image"][:-1] + "0"),
    "a command": lambda _, c: c.update(command=["cat", "/etc/retain/signing/signing.pem"]),
    "no arguments": lambda _, c: c.update(args=[]),
    "a hook of its life": lambda _, c: c.update(lifecycle={"postStart": {"exec": {"command": ["cat"]}}}),
    "a probe": lambda _, c: c.update(livenessProbe={"exec": {"command": ["cat"]}}),
    "a variable that loads code": lambda _, c: add(c, "env", {"name": "PYTHONPATH", "value": "/scratch"}),
    "a library": lambda _, c: add(c, "env", {"name": "LD_PRELOAD", "value": "/scratch/x.so"}),
    "a Git configuration of its own": lambda _, c: add(c, "env", {"name": "GIT_CONFIG_GLOBAL", "value": "/scratch/x"}),
    "Git's own variables": lambda _, c: add(c, "env", {"name": "GIT_CONFIG_COUNT", "value": "1"}),
    "variables of a Secret": lambda _, c: add(c, "envFrom", {"secretRef": {"name": "first-signing"}}),
    "a variable of a Secret": lambda _, c: add(
        c, "env", {"name": "K", "valueFrom": {"secretKeyRef": {"name": "first-signing", "key": "signing.pem"}}}
    ),
    "a second container": lambda s, c: add(s, "containers", {**c, "name": "x", "image": "registry.example/mine:1"}),
    "a container before": lambda s, c: add(s, "initContainers", {**c, "name": "x", "image": "registry.example/mine:1"}),
    "something of another kind before": lambda s, _: add(s, "initContainers", {**beside(), "restartPolicy": None}),
    "a Secret before": lambda s, _: add(
        s, "initContainers", {**beside(), "volumeMounts": [{"name": "credentials", "mountPath": "/room"}]}
    ),
    "a Secret besides the room": lambda s, _: add(
        s,
        "initContainers",
        {**beside(), "volumeMounts": [*beside()["volumeMounts"], {"name": "x", "mountPath": "/etc/retain/judge"}]},
    ),
    "no room before": lambda s, _: add(
        s, "initContainers", {key: value for key, value in beside().items() if key != "volumeMounts"}
    ),
    "variables before": lambda s, _: add(s, "initContainers", {**beside(), "env": [{"name": "X", "value": "1"}]}),
    "a command before": lambda s, _: add(s, "initContainers", {**beside(), "command": ["cat", "/room/x"]}),
    "arguments before": lambda s, _: add(s, "initContainers", {**beside(), "args": ["x"]}),
    "our entry point before": lambda s, _: add(
        s, "initContainers", {**{k: v for k, v in beside().items() if k != "command"}, "args": ["step", "gate"]}
    ),
    "a hook before": lambda s, _: add(
        s, "initContainers", {**beside(), "lifecycle": {"preStop": {"exec": {"command": ["cat"]}}}}
    ),
    "a container beside": lambda s, _: add(s, "ephemeralContainers", {"name": "x", "image": "registry.example/mine:1"}),
    "processes that see each other": lambda s, _: s.update(shareProcessNamespace=True),
    "a disk": lambda s, _: add(s, "volumes", {"name": "x", "persistentVolumeClaim": {"claimName": "x"}}),
    "a folder of the node": lambda s, _: add(s, "volumes", {"name": "x", "hostPath": {"path": "/"}}),
    "a volume over our code": lambda _, c: add(c, "volumeMounts", {"name": "scratch", "mountPath": "/opt/retain"}),
    "a Secret among others": lambda s, _: add(
        s, "volumes", {"name": "x", "projected": {"sources": [{"secret": {"name": "first-signing"}}]}}
    ),
}


@pytest.mark.parametrize("name", ["promote", "gate", "answer"])
@pytest.mark.parametrize("how", HOSTILE)
def test_a_pod_that_could_read_a_key_is_refused(name: str, how: str) -> None:
    name = "approve" if name == "answer" else name
    assert refusals(changed(name, HOSTILE[how])), how


@pytest.mark.parametrize("how", [how for how in HOSTILE if "before" in how or "room" in how])
def test_in_place_of_the_gates_checks_container_there_is_no_other(how: str) -> None:
    def instead(spec: Pod, container: Pod) -> None:
        spec["initContainers"] = []
        HOSTILE[how](spec, container)

    assert refusals(changed("gate", instead)), how


def test_a_gate_without_a_container_for_its_checks_gets_no_key() -> None:
    def nowhere(_: Pod, container: Pod) -> None:
        container["env"] = [variable for variable in container["env"] if variable["name"] != apart.FOLDER]

    def elsewhere(_: Pod, container: Pod) -> None:
        nowhere(_, container)
        add(container, "env", {"name": apart.FOLDER, "value": "/scratch"})

    for change in (nowhere, elsewhere, lambda spec, _: spec.pop("initContainers")):
        assert refusals(changed("gate", change)) == [
            "the gate's checks run in a container of their own, wherever the judge's Secret is"
        ]


OTHERS = [["step", "update"], ["sample", "x"], ["export"], ["step"], ["keys", "/scratch"], ["backup"]]


@pytest.mark.parametrize("arguments", OTHERS)
def test_a_judges_key_is_for_judges(arguments: list[str]) -> None:
    assert refusals(changed("gate", lambda _, c: c.update(args=arguments))) == [
        "the judge's Secret is for evaluate and gate"
    ]


@pytest.mark.parametrize("arguments", [["step", "gate"], ["step", "update"], ["sample", "x"], ["step"], ["night"]])
def test_a_key_that_signs_versions_is_for_what_changes_main(arguments: list[str]) -> None:
    found = refusals(changed("promote", lambda _, c: c.update(args=arguments)))
    assert found == ["a Secret that writes main, or signs, is for promote, close, backups and the acts of people"]


def test_a_step_mounts_no_key_by_asking_for_it() -> None:
    def mount(spec: Pod, container: Pod) -> None:
        add(spec, "volumes", {"name": "k", "secret": {"secretName": "first-judge"}})
        add(container, "volumeMounts", {"name": "k", "mountPath": "/etc/retain/judge", "readOnly": True})

    assert refusals(changed("update", mount)) == ["the judge's Secret is for evaluate and gate"]


def test_pods_without_those_secrets_are_nobodys_business() -> None:
    plain = {"spec": {"containers": [{"name": "x", "image": "registry.example/mine:1", "command": ["sleep"]}]}}
    assert refusals(plain) == []


def test_it_denies_and_fails_closed_in_this_namespace_alone() -> None:
    [policy] = named(manifests(VALUES), "ValidatingAdmissionPolicy").values()
    [binding] = named(manifests(VALUES), "ValidatingAdmissionPolicyBinding").values()
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert set(policy["spec"]["matchConstraints"]["resourceRules"][0]["operations"]) == {"CREATE", "UPDATE"}
    assert binding["spec"]["validationActions"] == ["Deny"]
    assert binding["spec"]["matchResources"]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "retain"
    }
    off = manifests({**VALUES, "admission": {"enabled": False}})
    assert not named(off, "ValidatingAdmissionPolicy")
