"""A place for trials on a real cluster: two namespaces, Git and S3 servers in a pod, the chart's objects, lines.

retain-trial-servers    the servers, on the node's own network, so that pods and this machine reach them alike
retain-trial            what the chart makes, its Secrets, and the pods of steps, under the `restricted` standard
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import yaml

from cl_steps.orchestration.pods.manifest import FILES
from cl_steps.records.keys import JUDGE, SIGNING
from tests.cluster.running import PASSWORDS, basic
from tests.cluster.servers import credentials
from tests.helm import chart

NAMESPACE, SERVERS = "retain-trial", "retain-trial-servers"
GIT_PORT, S3_PORT = 8418, 9418
STEPS_IMAGE = os.environ.get("RETAIN_STEPS_IMAGE", "localhost/retain-steps:test")
SERVERS_IMAGE = os.environ.get("RETAIN_SERVERS_IMAGE", "localhost/retain-servers:test")
DNS = os.environ.get("RETAIN_DNS", "")
TRIAL = "retain-trial"
"""The release: what it makes for the whole cluster has its name, and goes by it."""
QUEUE = {
    "clusterQueue": TRIAL,
    "flavors": [{"name": TRIAL, "quota": {"cpu": "1", "memory": "4Gi", "ephemeral-storage": "20Gi"}}],
}
"""With Kueue: room for one GPU step at a time."""
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "app.kubernetes.io/part-of": "retain"}


def kubectl(*arguments: str, stdin: str = "", check: bool = True) -> str:
    """What kubectl prints."""
    done = subprocess.run(["kubectl", *arguments], input=stdin, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def apply(*objects: Mapping[str, Any]) -> None:
    """Make these objects, or make them so."""
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))


@dataclass
class Site:
    """The trial's place; `folder` holds everything on this machine."""

    folder: Path
    node: str = field(default="")
    kueue: str = ""
    """The API version in which this cluster's Kueue takes a queue; empty where there is none."""

    @property
    def git(self) -> str:
        """The Git server's address."""
        return f"http://{self.node}:{GIT_PORT}"

    @property
    def s3(self) -> str:
        """The S3 server's address."""
        return f"http://{self.node}:{S3_PORT}"

    def files(self, user: str) -> dict[str, str]:
        """A user's credentials, by the name of the file."""
        return credentials(self.git, self.s3, user, PASSWORDS[user])

    def environment(self, user: str = "trusted") -> dict[str, str]:
        """This machine's environment with a user's credentials."""
        place = self.folder / "credentials" / user
        place.mkdir(parents=True, exist_ok=True)
        for name, content in self.files(user).items():
            (place / name).write_text(content, encoding="utf-8")
        return {**os.environ, **{name: str(place / file) for name, file in FILES.items()}}

    def retain(self, *arguments: str) -> str:
        """Run `retain` on this machine as a person with all rights; returns what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "cl_steps", *arguments],
            capture_output=True,
            text=True,
            env=self.environment(),
            check=False,
        )
        assert done.returncode == 0, f"retain {' '.join(arguments)}: {done.stderr[-2000:]}"
        return done.stdout

    def read(self, command: str, line: str) -> dict[str, Any]:
        """`retain status|versions|runs --json` of a line."""
        return dict(json.loads(self.retain(command, str(self.folder / line), "--json")))

    def down(self, seconds: float, what: str = "both") -> None:
        """Git, S3 or both go away for a while."""
        url = f"{self.git}/control/down?seconds={seconds:g}&what={what}"
        with urlopen(Request(url, method="POST", headers={"Authorization": basic("trusted")}), timeout=10):
            return

    def pods(self, selector: str = "app.kubernetes.io/component=step") -> list[dict[str, Any]]:
        """The pods of steps, as Kubernetes' JSON."""
        return list(json.loads(kubectl("-n", NAMESPACE, "get", "pods", "-l", selector, "-o", "json"))["items"])

    def wait_for_pod(self, line: str, step: str, seconds: float = 300) -> str:
        """The name of a step's pod, once it runs."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for pod in self.pods(f"retain.dev/line={line},retain.dev/step={step}"):
                if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]:
                    return str(pod["metadata"]["name"])
            time.sleep(1)
        raise AssertionError(f"no pod of {line}'s {step} ran within {seconds:g} s")

    def wait_for_other_pod(self, line: str, step: str, before: str, seconds: float = 300) -> str:
        """The name of the pod that came after `before`, once it runs."""
        end = time.monotonic() + seconds
        while (name := self.wait_for_pod(line, step, seconds)) == before:
            assert time.monotonic() < end, f"{before} was not replaced within {seconds:g} s"
            time.sleep(1)
        return name

    def wait_for_end(self, pod: str, seconds: float = 120) -> None:
        """Wait until a pod is told to end, has ended, or is gone."""
        end = time.monotonic() + seconds
        here = ("-n", NAMESPACE, "get", "pod", pod, "-o", "jsonpath={.status.phase}{.metadata.deletionTimestamp}")
        while kubectl(*here, check=False).strip() == "Running":
            assert time.monotonic() < end, f"{pod} still runs after {seconds:g} s"
            time.sleep(1)

    def wait_for_log(self, pod: str, words: str, seconds: float = 300) -> None:
        """Wait until a pod said something."""
        end = time.monotonic() + seconds
        while words not in kubectl("-n", NAMESPACE, "logs", pod, check=False):
            assert time.monotonic() < end, f"{pod} did not say {words!r} within {seconds:g} s"
            time.sleep(1)


@contextmanager
def site(folder: Path, lines: tuple[str, ...]) -> Iterator[Site]:
    """The trial's namespaces and servers with empty repositories for `lines`; gone afterwards."""
    address = '{.items[0].status.addresses[?(@.type=="InternalIP")].address}'
    found = Site(folder, kubectl("get", "nodes", "-o", f"jsonpath={address}"), _kueue())
    for namespace, labels in ((SERVERS, {}), (NAMESPACE, RESTRICTED)):
        kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=true")
        apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
    try:
        apply(_servers(lines))
        kubectl("-n", SERVERS, "wait", "--for=condition=Ready", "pod/servers", "--timeout=180s")
        yield found
    finally:
        for namespace in (NAMESPACE, SERVERS):
            kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false", check=False)
        queues = ",clusterqueues,resourceflavors" if found.kueue else ""
        kubectl("delete", f"priorityclasses{queues}", "-l", f"app.kubernetes.io/instance={TRIAL}", check=False)


def _kueue() -> str:
    """Its newest version that the chart knows."""
    queue = ("get", "crd", "clusterqueues.kueue.x-k8s.io", "-o", "jsonpath={.spec.versions[?(@.served)].name}")
    served = kubectl(*queue, check=False).split()
    return next((f"kueue.x-k8s.io/{name}" for name in ("v1beta2", "v1beta1") if name in served), "")


def install(place: Site, profiles: dict[str, Any], lines: list[dict[str, Any]]) -> None:
    """The chart's own objects and the lines' Secrets; Airflow itself runs on this machine."""
    host, _, port = DNS.rpartition(":")
    values = {
        "images": {"steps": STEPS_IMAGE, "pullPolicy": "IfNotPresent"},
        "profiles": profiles,
        "lines": lines,
        "network": {
            "git": [{"cidr": f"{place.node}/32", "port": GIT_PORT}],
            "store": [{"cidr": f"{place.node}/32", "port": S3_PORT}],
            **({"dns": [{"cidr": f"{host}/32", "port": int(port)}]} if port else {}),
        },
        "kueue": {"enabled": bool(place.kueue), **QUEUE, **({"apiVersion": place.kueue} if place.kueue else {})},
        "limitRange": {"enabled": False},
        "reaper": {"enabled": False},
        "watch": {"enabled": False},
    }
    chart.RELEASE.update(Namespace=NAMESPACE, Name=TRIAL)
    made = [
        found for found in chart.manifests(values) if "helm.sh/hook" not in found["metadata"].get("annotations", {})
    ]
    apply(*made)
    for user in ("step", "trusted"):
        metadata = {"name": user, "namespace": NAMESPACE}
        apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": place.files(user)})


def give_keys(folder: Path, line: str) -> None:
    """The keys of a line: the private ones as a Secret each, those that count as a ConfigMap."""
    names = {path.name: path.read_text(encoding="utf-8") for path in (folder / ".retain" / "keys").iterdir()}
    for kind, name, content in (
        ("Secret", f"{line}-signing", {"stringData": {SIGNING: names.pop(SIGNING)}}),
        ("Secret", f"{line}-judge", {"stringData": {JUDGE: names.pop(JUDGE)}}),
        ("ConfigMap", f"{line}-keys", {"data": names}),
    ):
        apply({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, **content})


def _servers(lines: tuple[str, ...]) -> dict[str, Any]:
    passwords = [{"name": f"{user.upper()}_PASSWORD", "value": word} for user, word in PASSWORDS.items()]
    arguments = ["--root", "/scratch/git", "--lines", ",".join(lines), "--bucket", "retain", "--host", "0.0.0.0"]  # noqa: S104
    container = {
        "name": "servers",
        "image": SERVERS_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": [*arguments, "--git-port", str(GIT_PORT), "--s3-port", str(S3_PORT)],
        "env": passwords,
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": GIT_PORT}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}},
    }
    spec = {
        "hostNetwork": True,
        # A node short of memory throws out others first: this pod's disk is all that the lines are.
        "priorityClassName": "system-node-critical",
        "securityContext": {"fsGroup": 65532},
        "containers": [container],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    }
    metadata = {"name": "servers", "namespace": SERVERS}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
