"""The pods of every step: reviewed golden files, and the rules that each of them keeps.

`python -m tests.dags.test_pods` writes the golden files anew; look at what changed before you commit it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cl_steps.pipeline import STEPS
from dags.profiles import Profile, Resources, Secrets, Toleration
from dags.registry import Entry
from dags.runners import runner_of

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
    secrets=Secrets(step="large-step", trusted="large-trusted", signing="large-signing"),
    profile=Profile(
        image="example/steps@sha256:0",
        pull_secrets=("registry",),
        gpu_step=Resources(cpu="16", memory="128Gi", gpus=4, shm="16Gi"),
        node_selector={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
        tolerations=(Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule"),),
        priority_class="retain-training",
        queue="nightly",
        deadline_hours=8,
    ),
)


def pod_of(entry: Entry, name: str) -> dict[str, Any]:
    """The pod that Kubernetes is given for a step, as the operator makes it; its random name left out."""
    from kubernetes.client import ApiClient

    runner = runner_of(entry)
    task = runner.task(STEPS[name], RUN) if name in STEPS else runner.command(name, ("approve", RUN), RUN, trusted=True)
    pod = ApiClient().sanitize_for_serialization(task.build_pod_request_obj(dry_run=True))
    del pod["metadata"]["name"], pod["metadata"]["labels"]["airflow_version"]
    return dict(pod)


CASES = [(entry, name) for entry in (SMALL, LARGE) for name in (*STEPS, "answer")]


@pytest.mark.parametrize(("entry", "name"), CASES, ids=[f"{entry.name}-{name}" for entry, name in CASES])
def test_the_pod_is_the_reviewed_one(entry: Entry, name: str) -> None:
    assert pod_of(entry, name) == yaml.safe_load((GOLDEN / f"{entry.name}-{name}.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("entry", "name"), CASES, ids=[f"{entry.name}-{name}" for entry, name in CASES])
def test_the_pod_keeps_the_restricted_standard_and_holds_no_secret(entry: Entry, name: str) -> None:
    spec = pod_of(entry, name)["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert not spec["hostNetwork"]
    assert {kind for volume in spec["volumes"] for kind in volume if kind != "name"} <= {"emptyDir", "secret"}
    for container in (*spec["containers"], *spec["initContainers"]):
        own = container["securityContext"]
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"]) == (False, True)
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert not container["envFrom"]
        assert not any("valueFrom" in variable for variable in container["env"])


def mounted(name: str) -> dict[str, str]:
    volumes = pod_of(LARGE, name)["spec"]["volumes"]
    return {volume["name"]: volume["secret"]["secretName"] for volume in volumes if "secret" in volume}


def test_who_may_write_main_and_who_may_sign() -> None:
    found = {name: mounted(name) for name in (*STEPS, "answer")}
    trusted = {name for name, secrets in found.items() if secrets["credentials"] == "large-trusted"}
    assert trusted == {"promote", "close", "answer"}
    assert {name for name, secrets in found.items() if "signing" in secrets} == {"promote", "answer"}
    assert all(found[name]["credentials"] == "large-step" for name in found if name not in trusted)


def test_close_ends_what_is_left_of_its_run_and_of_no_other() -> None:
    task = runner_of(LARGE).task(STEPS["close"], RUN)
    assert task.reaps.startswith(f"retain.dev/line=large,retain.dev/run={RUN},retain.dev/step in (ingest,")
    assert "close" not in task.reaps
    assert runner_of(LARGE).task(STEPS["update"], RUN).reaps == ""


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for entry, name in CASES:
        text = yaml.safe_dump(pod_of(entry, name), sort_keys=False)
        (GOLDEN / f"{entry.name}-{name}.yaml").write_text(text, encoding="utf-8")
