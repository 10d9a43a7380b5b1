"""Compute profiles: where and on what the steps of a line run. `lines.yaml` names them, no DAG code does."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from cl_steps.config import Block


def _amount(value: Any) -> Any:
    """YAML's numbers as Kubernetes takes them, too; true and false are none."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


AMOUNT = r"^\+?([0-9]+\.?[0-9]*|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$"
Quantity = Annotated[str, BeforeValidator(_amount), StringConstraints(pattern=AMOUNT)]
"""An amount as Kubernetes takes it: `500m`, `2`, `.5`, `16Gi`, `1e3`."""
LABEL = r"^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
LabelName = Annotated[str, StringConstraints(pattern=LABEL, max_length=253)]
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$", max_length=63)]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
OURS = ("RETAIN_", "GIT_CONFIG", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE")
"""How the names of variables begin that a pod gets from us."""
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
Seconds = Annotated[int, Field(ge=1, le=604_800)]


class Toleration(Block):
    """A taint that steps may stand, in Kubernetes' own words."""

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    seconds: int | None = None


class Resources(Block):
    """What one step's container gets: requests and limits are the same, so that nothing is taken from it.

    `node_selector` and `tolerations` are those of such steps alone, beside the profile's own.
    """

    cpu: Quantity = "2"
    memory: Quantity = "4Gi"
    gpus: Annotated[int, Field(ge=0)] = 0
    gpu_resource: str = "nvidia.com/gpu"
    shm: Quantity = "64Mi"
    node_selector: dict[LabelName, LabelValue] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()


class Checks(Block):
    """What the container of the owner's checks gets, beside the step's own in one pod; requests are limits, too."""

    cpu: Quantity = "1"
    memory: Quantity = "3Gi"
    scratch: Quantity = "1Gi"


class Authorities(Block):
    """Whom a step's TLS believes: a key of a ConfigMap, one PEM file with all authorities, the public ones too."""

    config_map: ObjectName
    key: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$")] = "ca.crt"


class Profile(Block):
    """Where steps run: `local` (a process beside the worker) or `pod`, and then everything that the pod needs.

    Labels, annotations, node selector, tolerations, affinity, environment and authorities are those of every step;
    runtime class, priority class, queue and pool those of GPU steps. `environment` is no place for secrets. Times are
    in seconds where they do not say otherwise: `schedule_seconds` waits for room, `start_seconds` for the image,
    `deadline_hours` ends a pod by Kubernetes itself, whether Airflow is up or not. With `nodes` above 1 that many pods
    compute `update` together.
    """

    runner: Literal["local", "pod"] = "pod"
    image: str = ""
    namespace: ObjectName = "retain"
    connection: str = ""
    service_account: ObjectName = "retain-step"
    pull_secrets: tuple[ObjectName, ...] = ()
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    cpu_step: Resources = Resources()
    gpu_step: Resources = Resources(cpu="4", memory="16Gi", gpus=1, shm="2Gi")
    checks: Checks = Checks()
    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    scratch: Quantity = "20Gi"
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict)
    annotations: dict[LabelName, str] = Field(default_factory=dict)
    node_selector: dict[LabelName, LabelValue] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    affinity: dict[str, Any] = Field(default_factory=dict)
    environment: dict[VariableName, str] = Field(default_factory=dict)
    authorities: Authorities | None = None
    runtime_class: str = ""
    priority_class: str = ""
    queue: str = ""
    schedule_seconds: Seconds = 3600
    start_seconds: Seconds = 900
    deadline_hours: Annotated[float, Field(gt=0, le=720)] = 24.0
    grace_seconds: Seconds = 120
    log_seconds: Seconds = 30
    poll_seconds: Annotated[float, Field(gt=0, le=3600)] = 5.0
    pool: str = "default_pool"

    @model_validator(mode="after")
    def _pods_have_an_image(self) -> Profile:
        if self.runner == "pod" and not self.image:
            raise ValueError("a profile whose runner is `pod` needs an image: the one that containers/build made")
        return self

    @field_validator("labels", "annotations", "environment")
    @classmethod
    def _not_ours(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if name.startswith(("retain.dev/", "app.kubernetes.io/", *OURS)):
                raise ValueError(f"{name} is one that every pod gets from us: choose another name")
        return value

    @model_validator(mode="after")
    def _nodes_are_pods(self) -> Profile:
        if self.runner != "pod" and self.nodes > 1:
            raise ValueError("several nodes need the runner `pod`: a process beside the worker has this machine alone")
        return self


LOCAL = Profile(runner="local")
"""The profile `local`, which is there without being written."""


class Secrets(Block):
    """Names of the line's Kubernetes Secrets; their keys are `gitconfig`, `aws-credentials` and `aws-config`.

    `step` may write `runs/*` of the workspace and nothing else, `trusted` main too; `signing` holds `signing.pem`, and
    `judge` holds `judge.pem`, with which evaluate and gate sign what they find.
    `trusted_keys` is no Secret but a ConfigMap, with `trusted.yaml` and the public keys that it names.
    """

    step: ObjectName
    trusted: ObjectName
    signing: ObjectName | Literal[""] = ""
    judge: ObjectName | Literal[""] = ""
    trusted_keys: ObjectName | Literal[""] = ""

    @model_validator(mode="after")
    def _signed_findings_count(self) -> Secrets:
        if self.trusted_keys and not self.judge:
            raise ValueError("where keys are trusted, evaluate and gate must sign: name the Secret `judge` too")
        return self


class Ask(Block):
    """Who is asked in Airflow about a run that is held, and how long; without an answer nothing is learnt.

    `assignees` are the ids of Airflow's users (empty: whoever may edit the DAG). The question ends `margin_minutes`
    before the next scheduled night at the latest, so that it never stands in its way.
    """

    assignees: tuple[str, ...] = ()
    hours: Annotated[float, Field(gt=0, le=8760)] = 20.0
    margin_minutes: Annotated[float, Field(ge=0, le=1440)] = 15.0


class Notify(Block):
    """Somebody to tell: an Airflow notifier by its import path, and of what.

    `overdue` is the alert that matters: no run of the line ended for `overdue_hours`. `integrity`: an audit found
    something that is not what its digest, its signature or its record says.
    """

    of: tuple[Literal["no_update", "promoted", "rejected", "held", "stale", "failed", "overdue", "integrity"], ...] = (
        "failed",
        "held",
        "overdue",
        "integrity",
    )
    notifier: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*\.[A-Za-z_]\w*$")]
    arguments: dict[str, Any] = Field(default_factory=dict)
