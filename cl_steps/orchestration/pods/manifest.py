"""The one template of a step's pod: a profile, a line and a command in, a manifest out. Pure; golden files pin it.

It meets the `restricted` pod security standard: no root, no privilege, no capability, a read-only root, no token of
Kubernetes' API. No secret is in it: credentials are files of a mounted Secret, and a step's Secret can write the
branches of runs and nothing else. Whose signatures count, every pod is told; a key that signs has only who signs with
it: the judge's evaluate and gate, the other what changes main in a person's or the gate's name.

Who runs the owner's checks has a second container for them, a sidecar of Kubernetes' own kind (1.29: an init container
that stays): the same image, no credential, no key, and one folder in which both meet (`cl_steps/checks/apart.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cl_steps.checks import apart
from cl_steps.documents import Json
from cl_steps.orchestration.pods.failures import CONTAINER
from cl_steps.orchestration.pods.profiles import Profile, Resources, Secrets, Toleration
from cl_steps.pipeline import GATE, PROMOTE, Role
from cl_steps.records import keys

USER = 65532
SCRATCH, CREDENTIALS = "/scratch", "/etc/retain/credentials"
ROOM = {"name": "RETAIN_SCRATCH_BYTES", "valueFrom": {"resourceFieldRef": {"resource": "limits.ephemeral-storage"}}}
"""How much a landing may fill, which the node's disk does not say; Kubernetes puts it in, in bytes."""
SIGNING, JUDGE, TRUSTED = "/etc/retain/signing", "/etc/retain/judge", "/etc/retain/trusted"
AUTHORITIES = "/etc/retain/authorities"
CHECKS, CHECKS_FOLDER = "checks", "/room"
CHECKS_COMMAND = ("/usr/bin/tini", "--", "python", "-P", "-m", apart.__name__, CHECKS_FOLDER)
"""What the checks' container runs: not the image's entry point, which wants a /scratch."""
HARDENED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
BELIEVES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO")
"""Which variables name the file with the authorities: for Python, requests, curl, S3 and Git."""
FILES = {
    "GIT_CONFIG_GLOBAL": "gitconfig",
    "AWS_SHARED_CREDENTIALS_FILE": "aws-credentials",
    "AWS_CONFIG_FILE": "aws-config",
}
"""Which variable names which file of the credentials."""
STAY = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""Asks autoscalers not to move a training pod to save a node."""


@dataclass(frozen=True)
class Job:
    """What a pod is to do: `arguments` of `retain`, for which step of which run, in which role.

    What `signs` has the key of versions and acts too; a judge always has its own.
    """

    name: str
    arguments: tuple[str, ...]
    run: str
    gpu: bool = False
    role: Role = "step"
    signs: bool = False


def manifest(
    profile: Profile, line: str, secrets: Secrets | None, settings: Mapping[str, str], job: Job
) -> dict[str, Any]:
    """The pod that runs `job` for a line, as Kubernetes takes it; `settings` are the line's places."""
    labels = {
        **profile.labels,
        "app.kubernetes.io/part-of": "retain",
        "app.kubernetes.io/component": "step",
        "retain.dev/line": line,
        "retain.dev/run": job.run,
        "retain.dev/step": job.name,
        "retain.dev/role": job.role,
        **({"kueue.x-k8s.io/queue-name": profile.queue} if job.gpu and profile.queue else {}),
    }
    metadata = {"name": f"{line}-{job.name}", "namespace": profile.namespace, "labels": labels}
    if annotations := {**profile.annotations, **(STAY if job.gpu else {})}:
        metadata["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": _spec(profile, secrets, settings, job)}


def _spec(profile: Profile, secrets: Secrets | None, settings: Mapping[str, str], job: Job) -> dict[str, Any]:
    spec = {
        "restartPolicy": "Never",
        "serviceAccountName": profile.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": profile.grace_seconds,
        "activeDeadlineSeconds": round(profile.deadline_hours * 3600),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(profile, secrets, settings, job)],
        "volumes": [volume for volume, _ in _places(profile, secrets, job)],
    }
    if _runs_checks(secrets, job):
        spec["initContainers"] = [_checks_container(profile)]
    if profile.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in profile.pull_secrets]
    return spec | _placement(profile, job)


def _placement(profile: Profile, job: Job) -> dict[str, Any]:
    """On which nodes a step runs, and a GPU step before whom."""
    own = profile.gpu_step if job.gpu else profile.cpu_step
    wishes: dict[str, Any] = {
        "nodeSelector": {**profile.node_selector, **own.node_selector},
        "tolerations": [_toleration(toleration) for toleration in (*profile.tolerations, *own.tolerations)],
        # Blocks hold tuples, Kubernetes' client wants lists.
        "affinity": json.loads(json.dumps(profile.affinity)),
        "runtimeClassName": profile.runtime_class if job.gpu else "",
        "priorityClassName": profile.priority_class if job.gpu else "",
    }
    return {key: value for key, value in wishes.items() if value}


def _toleration(toleration: Toleration) -> dict[str, Any]:
    given = {"key": toleration.key, "operator": toleration.operator, "value": toleration.value}
    rest = {"effect": toleration.effect, "tolerationSeconds": toleration.seconds}
    return {key: value for key, value in (given | rest).items() if value not in ("", None)}


def _runs_checks(secrets: Secrets | None, job: Job) -> bool:
    """The gate does, and where nobody's signature says what the gate found, promotion does it again."""
    return job.name == GATE.name or (job.name == PROMOTE.name and not (secrets and secrets.trusted_keys))


def _checks_container(profile: Profile) -> dict[str, Any]:
    wanted = profile.checks
    amounts = {"cpu": wanted.cpu, "memory": wanted.memory, "ephemeral-storage": wanted.scratch}
    return {
        "name": CHECKS,
        "image": profile.image,
        "imagePullPolicy": profile.pull_policy,
        "restartPolicy": "Always",
        "command": list(CHECKS_COMMAND),
        "resources": {"requests": dict(amounts), "limits": amounts},
        "securityContext": HARDENED,
        "volumeMounts": [{"name": CHECKS, "mountPath": CHECKS_FOLDER}],
    }


def _container(profile: Profile, secrets: Secrets | None, settings: Mapping[str, str], job: Job) -> dict[str, Any]:
    found = {**profile.environment, **settings, "RETAIN_IMAGE": profile.image}
    if profile.authorities:
        found |= dict.fromkeys(BELIEVES, f"{AUTHORITIES}/{profile.authorities.key}")
    if secrets:
        found |= {name: f"{CREDENTIALS}/{file}" for name, file in FILES.items()}
    if secrets and secrets.signing and job.signs:
        found["RETAIN_SIGNING_KEY"] = f"{SIGNING}/{keys.SIGNING}"
    if secrets and secrets.judge and job.role == "judge":
        found["RETAIN_JUDGE_KEY"] = f"{JUDGE}/{keys.JUDGE}"
    if secrets and secrets.trusted_keys:
        found["RETAIN_TRUSTED_KEYS"] = f"{TRUSTED}/{keys.TRUSTED}"
    if job.gpu:
        found["RETAIN_PROCESSES"] = "auto"
    if _runs_checks(secrets, job):
        found[apart.FOLDER] = CHECKS_FOLDER
    return {
        "name": CONTAINER,
        "image": profile.image,
        "imagePullPolicy": profile.pull_policy,
        "args": list(job.arguments),
        "env": [*({"name": name, "value": value} for name, value in sorted(found.items())), ROOM],
        "resources": _resources(profile.gpu_step if job.gpu else profile.cpu_step, profile.scratch),
        "securityContext": HARDENED,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [_mount(*place) for place in _places(profile, secrets, job)],
    }


def _resources(wanted: Resources, scratch: str) -> dict[str, Any]:
    amounts = {"cpu": wanted.cpu, "memory": wanted.memory, "ephemeral-storage": scratch}
    if wanted.gpus:
        amounts[wanted.gpu_resource] = str(wanted.gpus)
    return {"requests": dict(amounts), "limits": amounts}


def _places(profile: Profile, secrets: Secrets | None, job: Job) -> list[tuple[dict[str, Any], str]]:
    """Every volume of the pod and where its container finds it."""
    found: list[tuple[dict[str, Any], str]] = [
        ({"name": "scratch", "emptyDir": {"sizeLimit": profile.scratch}}, SCRATCH)
    ]
    if job.gpu:
        memory = {"medium": "Memory", "sizeLimit": profile.gpu_step.shm}
        found.append(({"name": "shm", "emptyDir": memory}, "/dev/shm"))  # noqa: S108  (where shared memory is mounted)
    if _runs_checks(secrets, job):
        found.append(({"name": CHECKS, "emptyDir": {"sizeLimit": profile.checks.scratch}}, CHECKS_FOLDER))
    if secrets:
        found.append((_secret("credentials", secrets.trusted if job.role == "trusted" else secrets.step), CREDENTIALS))
    if secrets and secrets.signing and job.signs:
        found.append((_secret("signing", secrets.signing), SIGNING))
    if secrets and secrets.judge and job.role == "judge":
        found.append((_secret("judge", secrets.judge), JUDGE))
    if secrets and secrets.trusted_keys:
        public = {"name": secrets.trusted_keys, "defaultMode": 0o440}
        found.append(({"name": "trusted", "configMap": public}, TRUSTED))
    if profile.authorities:
        believed = {"name": profile.authorities.config_map, "defaultMode": 0o440}
        found.append(({"name": "authorities", "configMap": believed}, AUTHORITIES))
    return found


def _secret(name: str, secret: str) -> dict[str, Any]:
    return {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}}


def _mount(volume: Json, path: str) -> dict[str, Any]:
    return {"name": volume["name"], "mountPath": path, **({} if "emptyDir" in volume else {"readOnly": True})}


def selector(line: str, run: str, steps: Sequence[str]) -> str:
    """The labels by which Kubernetes finds the pods of some steps of a run."""
    return f"retain.dev/line={line},retain.dev/run={run},retain.dev/step in ({','.join(steps)})"
