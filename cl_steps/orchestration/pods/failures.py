"""What became of a pod, and what to do about it. Pure: a pod as Kubernetes gives it (JSON) in, a finding out.

disrupted   evicted, preempted, drained, gone with its node      again at once, from the checkpoint
memory      it was killed because its memory ran out             again, each batch in twice as many parts
storage     evicted since it wrote more than its own limits      fails, and names the limit to raise
deadline    it took longer than its deadline                     fails
image       there is no such image, or it may not be pulled      fails
registry    where the image comes from is away                   again later
start       no room, or no start, in the time given for it       again later
            it cannot be set up or begun: wrong command, ...     fails
step        the step itself ended: its exit code says what for   see cl_steps/errors.py
integrity   the step ended so: a digest or signature is wrong    fails
killed      a signal from somewhere, or an end of no known kind  again
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from cl_steps.documents import Json
from cl_steps.errors import IntegrityError
from cl_steps.orchestration.endings import Todo, todo_of

Pod = Json
Kind = Literal[
    "disrupted", "memory", "storage", "deadline", "image", "registry", "start", "step", "integrity", "killed"
]

CONTAINER = "step"
BAD_IMAGE = ("InvalidImageName", "ErrImageNeverPull", "SignatureValidationFailed")
NOT_PULLED = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError")
NOT_THERE = re.compile(
    r"not ?found|not exist|no such image|(?:manifest|name|repository|blob)[ _]unknown|denied|unauthori[sz]ed|forbidden|"
    r"authentication required|authorization failed|insufficient_scope|invalid reference|no match for platform|"
    r"no matching manifest|unsupported media|\b40[134]\b",
    re.IGNORECASE,
)
"""What a registry says of an image that is not there, may not be had, or is not for this machine."""
AWAY = re.compile(
    r"no such host|server misbehaving|name resolution|connection (?:refused|reset)|reset by peer|no route to host|"
    r"network is unreachable|i/o timeout|time-?out|timed out|deadline exceeded|temporarily unavailable|try again|"
    r"too ?many ?requests|rate limit|qps exceeded|\b(?:429|5\d\d)\b|internal server error|bad gateway|"
    r"service unavailable|gateway timeout|tls|x509|certificate|\beof\b|broken pipe",
    re.IGNORECASE,
)
"""What a kubelet says of a server that it cannot reach, or that cannot answer now."""
NAMES = re.compile(r"\"[^\"]*\"|(?!i/o\b)\S*/\S+")
"""Names of images and addresses in such words: one may be called `timeout` or `not-found`."""
DISRUPTIONS = (
    "Evicted", "Preempting", "NodeLost", "Shutdown", "NodeShutdown", "Terminated", "UnexpectedAdmissionError",
)  # fmt: skip
"""What a kubelet says of a pod that it took off, beside `OutOfcpu`, `OutOfmemory`, ...: its node shrank or was full."""
BAD_SETUP = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
NEVER_BEGAN = ("StartError", "ContainerCannotRun")
NO_COMMAND = (126, 127)
"""How a shell ends whose command may not be run, or is not there."""
WRONG_MACHINE = "exec format error"
OWN_LIMIT = re.compile(
    r'emptydir volume "(?P<volume>[^"]*)" exceeds|ephemeral (?:local )?storage (?:usage|limit)', re.I
)
"""What a kubelet says of a pod that wrote more than it asked for. A node that is full is said in other words."""
OF_VOLUME = {"shm": "shm of its gpu_step", "checks": "scratch of its checks"}
"""Which setting of the profile bounds a volume; `scratch` the rest."""
SIGKILL, SIGTERM = 128 + 9, 128 + 15


@dataclass(frozen=True)
class Finding:
    """What happened, in a sentence, and what Airflow has to do."""

    kind: Kind
    todo: Todo
    sentence: str


def find(pod: Pod | None) -> Finding:
    """What became of a pod that did not end well, from its last state; None where nothing is left of it."""
    if pod is None:
        return Finding("disrupted", "resume", "the pod is gone: evicted, drained, deleted, or lost with its node")
    status = pod.get("status", {})
    return _of_pod(pod, status) or _of_container(status) or _of_start(status) or _unknown(status)


def refused(status: int | None, message: str) -> Finding:
    """Why Kubernetes did not take a pod (`message` is its answer): a mistake fails, a full quota is waited for."""
    with suppress(ValueError, KeyError, TypeError):
        message = str(json.loads(message)["message"])
    why = _line(message)
    if status in (400, 403, 404, 422) and "exceeded quota" not in message:
        return Finding("start", "fail", f"Kubernetes refuses the pod ({status}): {why}")
    return Finding("start", "again", f"Kubernetes cannot take the pod now ({status}): {why}")


def _of_pod(pod: Pod, status: Json) -> Finding | None:
    """What Kubernetes says of the pod as a whole."""
    reason, message = status.get("reason", ""), status.get("message", "")
    if reason == "DeadlineExceeded":
        seconds = pod.get("spec", {}).get("activeDeadlineSeconds", 0)
        hours = f"{seconds / 3600:g} hours"
        return Finding("deadline", "fail", f"it took longer than {hours}: raise deadline_hours, or do fewer steps")
    if reason == "Evicted" and (limit := OWN_LIMIT.search(message)):
        setting = OF_VOLUME.get(limit["volume"], "scratch")
        return Finding(
            "storage", "fail", f"it wrote more than it may: raise {setting} in its profile ({_line(message)})"
        )
    target = _condition(status, "DisruptionTarget")
    if reason in DISRUPTIONS or reason.startswith("OutOf") or target.get("status") == "True":
        why = message or target.get("message") or target.get("reason") or reason
        return Finding("disrupted", "resume", f"the pod was taken off its node: {_line(why)}")
    return None


def _of_container(status: Json) -> Finding | None:
    """How the step's process ended."""
    ended = _state(status).get("terminated")
    if not ended:
        return None
    code, reason, message = int(ended.get("exitCode", -1)), ended.get("reason", ""), str(ended.get("message", ""))
    if reason == "OOMKilled":
        return Finding("memory", "smaller", "the memory of its container ran out")
    if WRONG_MACHINE in message.lower():
        return Finding("start", "fail", f"the image is not made for this kind of machine: {_line(message)}")
    if reason in NEVER_BEGAN or code in NO_COMMAND:
        return Finding("start", "fail", f"its command cannot be run: {_line(message) or reason}")
    if code in (SIGKILL, SIGTERM):
        return Finding("killed", "again", f"it was ended from outside (exit code {code})")
    last = _line(message) or f"it ended with exit code {code}"
    return Finding("integrity" if code == IntegrityError.exit_code else "step", todo_of(code), last)


def _of_start(status: Json) -> Finding | None:
    """Why a step never began."""
    waiting = _waiting(status)
    reason, message = waiting.get("reason", ""), _line(waiting.get("message", ""))
    if reason in (*BAD_IMAGE, *NOT_PULLED):
        return _of_image(reason, message)
    if reason in BAD_SETUP:
        away = AWAY.search(NAMES.sub("", message))
        return Finding("start", "again" if away else "fail", f"the container cannot be made ({reason}): {message}")
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        why = _line(scheduled.get("message") or scheduled.get("reason", ""))
        return Finding("start", "again", f"no node had room for it in time: {why}")
    if status.get("phase") == "Pending":
        return Finding("start", "again", f"it did not start in time ({reason or 'its volumes or image are not ready'})")
    return None


def _of_image(reason: str, message: str) -> Finding:
    """An image that is not there is not asked for again; a registry that is away is, and so is what nobody explains."""
    said = NAMES.sub("", message)
    if reason in BAD_IMAGE or (NOT_THERE.search(said) and not AWAY.search(said)):
        return Finding("image", "fail", f"the image cannot be pulled ({reason}): {message}")
    return Finding("registry", "again", f"the image cannot be pulled now ({reason}): {message}")


def _unknown(status: Json) -> Finding:
    phase, message = status.get("phase", "in no phase"), _line(status.get("message", ""))
    return Finding("killed", "again", f"the pod ended as {phase} {message}".strip())


def _state(status: Json) -> Json:
    """The state of the step's container."""
    statuses = status.get("containerStatuses") or []
    return next((s.get("state", {}) for s in statuses if s.get("name") == CONTAINER), {})


def _waiting(status: Json) -> Json:
    """What the step's container waits for; where that is one before it (the checks' own), what this waits for."""
    own = _state(status).get("waiting", {})
    before = [s.get("state", {}).get("waiting") for s in status.get("initContainerStatuses") or []]
    return next(filter(None, before), own) if own.get("reason", "PodInitializing") == "PodInitializing" else own


def _condition(status: Json, kind: str) -> Json:
    return next((c for c in status.get("conditions") or [] if c.get("type") == kind), {})


def _line(text: str) -> str:
    """The last line of what a container or Kubernetes said, cut to a sentence's length."""
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""
