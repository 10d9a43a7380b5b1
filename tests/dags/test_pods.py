"""The pods of every step: reviewed golden files, and the rules that each of them keeps.

`python -m tests.dags.test_pods` writes the golden files anew; look at what changed before you commit it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity

from cl_steps.checks import apart
from cl_steps.orchestration.pods.manifest import BELIEVES, ROOM
from cl_steps.orchestration.pods.profiles import Authorities, Profile, Resources, Secrets, Toleration
from cl_steps.orchestration.registry import Entry
from cl_steps.orchestration.runners import runner_of
from cl_steps.pipeline import STEPS
from cl_steps.records import keys
from cl_steps.run.machine import Machine

GOLDEN = Path(__file__).parent / "pods"
RUN = "2026-01-01-abcdef12"
SMALL = Entry(
    name="small",
    workspace="https://git.example/small.git",
    store="s3://bucket/small",
    profile=Profile(image="example/steps@sha256:0", gpu_step=Resources(gpus=0)),
)
LARGE = Entry(
    name="large",
    workspace="https://git.example/large.git",
    store="s3://bucket/large",
    work="s3://bucket/work/large",
    landing="s3://bucket/landing/large",
    secrets=Secrets(
        step="large-step",
        trusted="large-trusted",
        signing="large-signing",
        judge="large-judge",
        trusted_keys="large-keys",
    ),
    profile=Profile(
        image="example/steps@sha256:0",
        pull_secrets=("registry",),
        gpu_step=Resources(
            cpu="16",
            memory="128Gi",
            gpus=4,
            shm="16Gi",
            node_selector={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
            tolerations=(Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule"),),
        ),
        labels={"team": "pictures"},
        annotations={"example.com/paid-by": "pictures"},
        node_selector={"kubernetes.io/arch": "amd64"},
        tolerations=(Toleration(key="dedicated", value="retain", seconds=60),),
        affinity={"nodeAffinity": {}},
        environment={"HTTPS_PROXY": "http://proxy.example:3128"},
        authorities=Authorities(config_map="authorities"),
        priority_class="retain-training",
        queue="nightly",
        deadline_hours=8,
    ),
)
WIDE = LARGE.model_copy(update={"name": "wide", "profile": LARGE.profile.model_copy(update={"nodes": 2})})
COMMANDS = {
    "answer": {"arguments": ("approve", RUN), "trusted": True},
    "audit": {"arguments": ("audit", LARGE.workspace), "gpu": True},
    "prune": {"arguments": ("prune", LARGE.workspace), "trusted": True},
}


def task_of(entry: Entry, name: str) -> Any:
    """The operator of a step or a command."""
    runner = runner_of(entry)
    return runner.task(STEPS[name], RUN) if name in STEPS else runner.command(name, run=RUN, **COMMANDS[name])


def pod_of(entry: Entry, name: str) -> dict[str, Any]:
    """The pod that Kubernetes is given for a step, as the operator makes it; its random name left out."""
    from kubernetes.client import ApiClient

    pod = ApiClient().sanitize_for_serialization(task_of(entry, name).build_pod_request_obj(dry_run=True))
    del pod["metadata"]["name"], pod["metadata"]["labels"]["airflow_version"]
    return dict(pod)


def job_of(entry: Entry) -> dict[str, Any]:
    """The Job of an update on several nodes, its random name put aside."""
    job = task_of(entry, "update").job_manifest(dry_run=True)
    name = job["metadata"]["name"]
    text = yaml.safe_dump(job, sort_keys=False).replace(name, f"{entry.name}-update-random")
    found = yaml.safe_load(text)
    for labels in (found["metadata"]["labels"], found["spec"]["template"]["metadata"]["labels"]):
        del labels["airflow_version"]
    return dict(found)


CASES = [
    *((entry, name) for entry in (SMALL, LARGE) for name in (*STEPS, "answer")),
    (LARGE, "audit"),
    (WIDE, "evaluate"),
]


@pytest.mark.parametrize(("entry", "name"), CASES, ids=[f"{entry.name}-{name}" for entry, name in CASES])
def test_the_pod_is_the_reviewed_one(entry: Entry, name: str) -> None:
    assert pod_of(entry, name) == yaml.safe_load((GOLDEN / f"{entry.name}-{name}.yaml").read_text(encoding="utf-8"))


def test_the_job_of_an_update_on_several_nodes_is_the_reviewed_one() -> None:
    assert job_of(WIDE) == yaml.safe_load((GOLDEN / "wide-update.yaml").read_text(encoding="utf-8"))


def test_the_pod_of_a_job_is_the_one_template_and_knows_its_nodes() -> None:
    job, single = job_of(WIDE), pod_of(LARGE.model_copy(update={"name": "wide"}), "update")
    template = job["spec"]["template"]
    [container], [alone] = template["spec"].pop("containers"), single["spec"].pop("containers")
    told = {variable["name"]: variable.get("value") for variable in container.pop("env")}
    known = {variable["name"]: variable.get("value") for variable in alone.pop("env")}
    assert {name: told[name] for name in told if name not in known} == {
        "RETAIN_NODES": "2",
        "MASTER_ADDR": "wide-update-random-0.retain-nodes",
    }
    assert container == alone
    assert template["spec"].pop("subdomain") == "retain-nodes"
    deadline = single["spec"].pop("activeDeadlineSeconds")
    assert template["spec"] == single["spec"]
    assert job["spec"]["activeDeadlineSeconds"] == deadline
    # Kueue admits the Job as a whole; its pods are not queued again.
    assert "kueue.x-k8s.io/queue-name" in job["metadata"]["labels"]
    assert "kueue.x-k8s.io/queue-name" not in template["metadata"]["labels"]
    kubernetes_validate.validate(job_of(WIDE), "1.36", strict=True)
    machine = Machine.of({**told, "JOB_COMPLETION_INDEX": "1"})
    assert (machine.nodes, machine.node, machine.address) == (2, 1, told["MASTER_ADDR"])


def test_a_jobs_host_names_fit_dns_whatever_the_line_is_called() -> None:
    long = WIDE.model_copy(update={"name": "l" * 41})
    name = task_of(long, "update").job_manifest(dry_run=True)["metadata"]["name"]
    assert len(f"{name}-63") <= 63


@pytest.mark.parametrize(("entry", "name"), CASES, ids=[f"{entry.name}-{name}" for entry, name in CASES])
def test_the_pod_keeps_the_restricted_standard_and_holds_no_secret(entry: Entry, name: str) -> None:
    spec = pod_of(entry, name)["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert not spec["hostNetwork"]
    assert {kind for volume in spec["volumes"] for kind in volume if kind != "name"} <= {
        "emptyDir",
        "secret",
        "configMap",
    }
    for container in (*spec["containers"], *spec["initContainers"]):
        own = container["securityContext"]
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"]) == (False, True)
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert not container.get("envFrom")
        assert all(variable == ROOM for variable in container.get("env", ()) if "valueFrom" in variable)
    kubernetes_validate.validate(pod_of(entry, name), "1.36", strict=True)


SIDECARS = {("large", "gate"), ("small", "gate"), ("small", "promote")}
"""Where nobody's signature says what the gate found, promotion runs the owner's checks again."""


@pytest.mark.parametrize(("entry", "name"), CASES, ids=[f"{entry.name}-{name}" for entry, name in CASES])
def test_owners_checks_have_a_container_of_their_own_that_holds_nothing(entry: Entry, name: str) -> None:
    spec = pod_of(entry, name)["spec"]
    [step] = spec["containers"]
    told = {variable["name"]: variable.get("value") for variable in step["env"]}
    if (entry.name, name) not in SIDECARS:
        assert spec["initContainers"] == []
        assert apart.FOLDER not in told
        return
    [beside] = spec["initContainers"]
    assert beside["restartPolicy"] == "Always"
    assert beside["image"] == step["image"]
    assert not beside.get("env")
    [mount] = beside["volumeMounts"]
    assert mount["mountPath"] == told[apart.FOLDER] == beside["command"][-1]
    [shared] = [volume for volume in spec["volumes"] if volume["name"] == mount["name"]]
    assert shared.keys() == {"name", "emptyDir"}
    assert spec["automountServiceAccountToken"] is False
    assert mount in step["volumeMounts"]


def mounted(name: str) -> dict[str, str]:
    volumes = pod_of(LARGE, name)["spec"]["volumes"]
    return {volume["name"]: volume["secret"]["secretName"] for volume in volumes if "secret" in volume}


def test_who_may_write_main_and_who_may_sign() -> None:
    found = {name: mounted(name) for name in (*STEPS, *COMMANDS)}
    trusted = {name for name, secrets in found.items() if secrets["credentials"] == "large-trusted"}
    assert trusted == {"promote", "close", "answer", "prune"}
    assert {name for name, secrets in found.items() if "signing" in secrets} == {"promote", "answer", "prune"}
    assert {name for name, secrets in found.items() if "judge" in secrets} == {"evaluate", "gate"}
    assert all(found[name]["credentials"] == "large-step" for name in found if name not in trusted)
    roles = {name: pod_of(LARGE, name)["metadata"]["labels"]["retain.dev/role"] for name in STEPS}
    assert roles == {name: step.role for name, step in STEPS.items()}


@pytest.mark.parametrize("name", [*STEPS, *COMMANDS])
def test_every_pod_runs_where_the_profile_says_and_finds_its_way_out(name: str) -> None:
    pod = pod_of(LARGE, name)
    spec, gpu = pod["spec"], name in ("update", "evaluate", "audit")
    assert pod["metadata"]["labels"]["team"] == "pictures"
    assert pod["metadata"]["annotations"]["example.com/paid-by"] == "pictures"
    assert spec["nodeSelector"]["kubernetes.io/arch"] == "amd64"
    assert ("nvidia.com/gpu.product" in spec["nodeSelector"]) is gpu
    assert [toleration["key"] for toleration in spec["tolerations"]] == ["dedicated", *["nvidia.com/gpu"] * gpu]
    assert "nodeAffinity" in spec["affinity"]
    told = {variable["name"]: variable.get("value") for variable in spec["containers"][0]["env"]}
    assert told["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert {told[variable] for variable in BELIEVES} == {"/etc/retain/authorities/ca.crt"}


@pytest.mark.parametrize("name", ["RETAIN_JUDGE_KEY", "GIT_CONFIG_COUNT", "AWS_CONFIG_FILE", "a b", "1X"])
def test_a_profiles_environment_leaves_ours_alone(name: str) -> None:
    with pytest.raises(ValueError, match=r"environment|from us"):
        Profile(image="x", environment={name: "x"})


@pytest.mark.parametrize("amount", ["4", 4, 0.5, ".5", "1Ei", "1e3", "1E-3", "500m", "2.", "+1", "100n", "5k"])
def test_every_amount_that_kubernetes_takes_is_one(amount: object) -> None:
    found = Resources.model_validate({"cpu": amount}).cpu
    assert parse_quantity(found.lstrip("+")) == parse_quantity(str(amount).lstrip("+"))


@pytest.mark.parametrize("amount", ["", "-1", "1 Gi", "Gi", "1KI", "1ki", "1g", ".", "1e", True, None, "nan"])
def test_what_is_no_amount_is_refused(amount: object) -> None:
    with pytest.raises(ValueError, match="cpu"):
        Resources.model_validate({"cpu": amount})


def test_who_trusts_keys_needs_a_judge_among_the_secrets() -> None:
    with pytest.raises(ValueError, match="`judge` too"):
        Secrets(step="s", trusted="t", trusted_keys="keys")


@pytest.mark.parametrize("name", [*STEPS, *COMMANDS])
def test_every_pod_knows_whom_to_trust_and_who_signs_finds_its_key(name: str) -> None:
    spec = pod_of(LARGE, name)["spec"]
    [container] = spec["containers"]
    told = {variable["name"]: variable.get("value") for variable in container["env"]}
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    maps = {volume["name"]: volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume}
    assert maps == {"trusted": "large-keys", "authorities": "authorities"}
    assert told["RETAIN_TRUSTED_KEYS"] == f"{mounts['trusted']['mountPath']}/{keys.TRUSTED}"
    assert all(mount["readOnly"] for mount in mounts.values() if mount["name"] not in ("scratch", "shm", "checks"))
    assert ("signing" in mounts) is ("RETAIN_SIGNING_KEY" in told)
    if "signing" in mounts:
        assert told["RETAIN_SIGNING_KEY"] == f"{mounts['signing']['mountPath']}/{keys.SIGNING}"
    assert ("judge" in mounts) is ("RETAIN_JUDGE_KEY" in told)
    if "judge" in mounts:
        assert told["RETAIN_JUDGE_KEY"] == f"{mounts['judge']['mountPath']}/{keys.JUDGE}"


def test_close_ends_what_is_left_of_its_run_and_of_no_other() -> None:
    task = runner_of(LARGE).task(STEPS["close"], RUN)
    assert task.reaps.startswith(f"retain.dev/line=large,retain.dev/run={RUN},retain.dev/step in (ingest,")
    assert "close" not in task.reaps
    assert runner_of(LARGE).task(STEPS["update"], RUN).reaps == ""


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    wide = yaml.safe_dump(job_of(WIDE), sort_keys=False)
    (GOLDEN / "wide-update.yaml").write_text(wide, encoding="utf-8")
    for entry, name in CASES:
        text = yaml.safe_dump(pod_of(entry, name), sort_keys=False)
        (GOLDEN / f"{entry.name}-{name}.yaml").write_text(text, encoding="utf-8")
