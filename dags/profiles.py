"""Compute profiles: where and on what the steps of a line run. `lines.yaml` names them, no DAG code does."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from cl_steps.config import Block

Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|[kKMGTP]i?)?$")]
"""An amount as Kubernetes writes it: `500m`, `2`, `16Gi`."""
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
Seconds = Annotated[int, Field(ge=1, le=10**7)]


class Resources(Block):
    """What one step's container gets: requests and limits are the same, so that nothing is taken from it."""

    cpu: Quantity = "2"
    memory: Quantity = "4Gi"
    gpus: Annotated[int, Field(ge=0)] = 0
    gpu_resource: str = "nvidia.com/gpu"
    shm: Quantity = "64Mi"


class Toleration(Block):
    """A taint that GPU steps may stand, in Kubernetes' own words."""

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    seconds: int | None = None


class Profile(Block):
    """Where steps run: `local` (a process beside the worker) or `pod`, and then everything that the pod needs.

    Node selector, tolerations, queue, priority class and pool are those of GPU steps. Times are in seconds where they
    do not say otherwise: `schedule_seconds` waits for room, `start_seconds` for the image, `deadline_hours` ends a pod
    by Kubernetes itself, whether Airflow is up or not. With `nodes` above 1 that many pods compute `update` together.
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
    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    scratch: Quantity = "20Gi"
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    runtime_class: str = ""
    priority_class: str = ""
    queue: str = ""
    schedule_seconds: Seconds = 3600
    start_seconds: Seconds = 900
    deadline_hours: Annotated[float, Field(gt=0, le=10_000)] = 24.0
    grace_seconds: Seconds = 120
    log_seconds: Seconds = 30
    poll_seconds: Annotated[float, Field(gt=0, le=3600)] = 5.0
    pool: str = "default_pool"

    @model_validator(mode="after")
    def _pods_have_an_image(self) -> Profile:
        if self.runner == "pod" and not self.image:
            raise ValueError("a profile whose runner is `pod` needs an image: the one that containers/build made")
        return self

    @model_validator(mode="after")
    def _nodes_are_pods(self) -> Profile:
        if self.runner != "pod" and self.nodes > 1:
            raise ValueError("several nodes need the runner `pod`: a process beside the worker has this machine alone")
        return self


LOCAL = Profile(runner="local")
"""The profile `local`, which is there without being written."""


class Secrets(Block):
    """Names of the line's Kubernetes Secrets; their keys are `gitconfig`, `aws-credentials` and `aws-config`.

    `step` may write `runs/*` of the workspace and nothing else, `trusted` main too; `signing` holds `signing.pem`.
    `trusted_keys` is no Secret but a ConfigMap, with `trusted.yaml` and the public keys that it names.
    """

    step: ObjectName
    trusted: ObjectName
    signing: ObjectName | Literal[""] = ""
    trusted_keys: ObjectName | Literal[""] = ""


class Ask(Block):
    """Who is asked in Airflow about a run that is held, and how long; without an answer nothing is learnt.

    `assignees` are the ids of Airflow's users (empty: whoever may edit the DAG). The question ends `margin_minutes`
    before the next scheduled night at the latest, so that it never stands in its way.
    """

    assignees: tuple[str, ...] = ()
    hours: Annotated[float, Field(gt=0, le=10_000)] = 20.0
    margin_minutes: Annotated[float, Field(ge=0, le=10**6)] = 15.0


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
