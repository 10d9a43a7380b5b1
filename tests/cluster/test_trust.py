"""Whom a cluster lets do what: owners' checks, a stolen training pod, and pods that are made to read a key."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from copy import deepcopy
from typing import Any

import pytest
import yaml

from cl_steps.orchestration.pods.manifest import CHECKS, CHECKS_FOLDER, Job, manifest
from cl_steps.orchestration.pods.profiles import Profile, Secrets
from cl_steps.pipeline import STAGES, STEPS
from cl_steps.repository.git import git, text
from cl_steps.repository.mainline import Change, reading
from tests.cluster.airflow import Airflow
from tests.cluster.site import NAMESPACE, Site, kubectl
from tests.cluster.trial import PROFILES, entry, land, last, nothing_is_left
from tests.lasting import read_json

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]
LINE = "judged"
OWN_CHECK = """
import os, time

def test_it_finds_no_credential():
    names = [name for name in os.environ if name.startswith(("AWS_", "GIT_", "RETAIN_")) and "INPUTS" not in name]
    assert names == [], names
    for place in ("/etc/retain", "/etc/retain/judge", "/etc/retain/credentials", "/var/run/secrets", "/scratch"):
        try:
            assert os.listdir(place) == [], place
        except OSError:
            pass
    time.sleep(20)
"""
FROM_OUTSIDE = """
import json, os, pathlib
places = ("/etc/retain/judge/judge.pem", "/etc/retain/credentials/gitconfig", "/etc/retain/credentials",
          "/etc/retain/trusted", "/var/run/secrets/kubernetes.io")
try:
    open("/opt/here", "w").close()
    writable = True
except OSError:
    writable = False
print(json.dumps({
    "places": [place for place in places if os.path.lexists(place)],
    "names": sorted(name for name in os.environ if name.startswith(("RETAIN_", "AWS_", "GIT_CONFIG", "GIT_SSL"))),
    "words": pathlib.Path("/proc/1/cmdline").read_bytes().decode().split("\\0"),
    "mounts": [line.split()[1] for line in open("/proc/mounts") if "/etc/retain" in line or "secrets" in line],
    "writable": writable,
}))
"""


def test_owners_checks_run_where_no_credential_is(place: Site, airflow: Airflow) -> None:
    with reading(f"{place.git}/{LINE}.git") as main:
        main.swap(lambda: Change({"checks/test_look.py": OWN_CHECK.encode()}, "a check of our own"))
    land(place, LINE, 2)
    run = airflow.trigger(LINE)
    pod = place.wait_for_pod(LINE, "gate", seconds=1500)
    wait_for_checks(pod)
    beside, gate = (seen(pod, container) for container in (CHECKS, "step"))
    assert beside["places"] == beside["names"] == beside["mounts"] == []
    assert beside["writable"] is False
    assert "cl_steps.checks.apart" in beside["words"]
    assert {"/etc/retain/judge/judge.pem", "/etc/retain/credentials/gitconfig"} <= set(gate["places"])
    assert "RETAIN_JUDGE_KEY" in gate["names"]
    assert airflow.wait(LINE, run) == "success", airflow.tasks(LINE, run)
    event = last(place, LINE)
    assert (event.outcome, event.version) == ("promoted", "v2"), event
    with reading(f"{place.git}/{LINE}.git") as main:
        report = read_json(main, "reports/gate.json")
    assert report["figures"]["user_checks"] == {"passed": 1, "failed": 0, "skipped": 0}
    assert report["figures"]["isolation"]["container"] is True
    assert report["figures"]["isolation"]["calls"] is True
    nothing_is_left(place, LINE)


def wait_for_checks(pod: str, seconds: float = 180) -> None:
    """Until the checks' container is at work."""
    end = time.monotonic() + seconds
    while "work" not in kubectl("-n", NAMESPACE, "exec", pod, "-c", CHECKS, "--", "ls", CHECKS_FOLDER, check=False):
        assert time.monotonic() < end, f"{pod} did not begin its checks within {seconds:g} s"
        time.sleep(1)


def seen(pod: str, container: str) -> dict[str, Any]:
    """What a program that somebody starts in a container of a pod finds there."""
    words = ("-n", NAMESPACE, "exec", pod, "-c", container, "--", "python", "-c", FROM_OUTSIDE)
    return dict(json.loads(kubectl(*words)))


THIEF = """
import json, os, pathlib, subprocess, sys, yaml
workspace, run, honest, names = *sys.argv[1:4], sys.argv[4].split(",")
os.makedirs(os.environ["HOME"], exist_ok=True)
os.makedirs(os.environ["TMPDIR"], exist_ok=True)
def git(*words):
    done = subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@x", *words], capture_output=True, text=True)
    return "taken" if done.returncode == 0 else " ".join(done.stderr.split())
print("clone:", git("clone", "-q", workspace, "/scratch/w"))
os.chdir("/scratch/w")
pathlib.Path("versions").mkdir(exist_ok=True)
pathlib.Path("versions/v0009.json").write_text("{}")
git("add", "-A"), git("commit", "-qm", "forged")
for ref in ("refs/heads/main", "refs/tags/model@v0.0.9", "refs/heads/archive"):
    print(f"push {ref}:", git("push", "-q", "origin", f"HEAD:{ref}"))
print("delete:", git("push", "-q", "origin", f":refs/heads/runs/{honest}"))

git("checkout", "-q", "-B", "forged", f"origin/runs/{run}")
git("fetch", "-q", "origin", f"+refs/heads/begun/{run}:refs/retain/begun")
show = lambda path: subprocess.run(["git", "show", f"origin/runs/{honest}:{path}"], capture_output=True).stdout
lock, other = yaml.safe_load(open("dvc.lock")), yaml.safe_load(show("dvc.lock"))
for name in names:
    lock["stages"][name] = other["stages"][name]
    report = {**json.loads(show(f"reports/{name}.json")), "run": run}
    pathlib.Path(f"reports/{name}.json").write_text(json.dumps(report))
pathlib.Path("dvc.lock").write_text(yaml.safe_dump(lock))
subprocess.run(["retain", "keys", "/scratch/keys", "--name", "judged"], check=True, stdout=subprocess.DEVNULL)
from cl_steps.verify import judging
from cl_steps.records.signer import KeyFile, sign_statement
from cl_steps.pipeline import STEPS
from cl_steps.repository.run_branch import run_state
root = pathlib.Path(".")
for name in ("evaluate", "gate"):
    subjects, materials = judging._found(root, run_state(root), STEPS[name], ())
    link = {"name": name, "command": [], "materials": judging._resources(materials), "byproducts": {}}
    made = sign_statement(KeyFile(pathlib.Path("/scratch/keys/judge.pem")), subjects, judging.LINK,
                          {**link, "environment": {}})
    pathlib.Path(STEPS[name].statement).write_bytes(made)
git("add", "-A"), git("commit", "-qm", "forged")
print("push the run:", git("push", "-q", "origin", f"HEAD:refs/heads/runs/{run}"))
print("done", flush=True)
"""


def test_a_stolen_training_pod_pushes_no_main_and_forges_no_evaluation(place: Site, airflow: Airflow) -> None:
    """The pod is what `update` is: its Secret, its account, its image, its rights; only the program is a thief's."""
    honest = place.read("runs", LINE)["runs"][-1]["run"]
    land(place, LINE, 3)
    failing = airflow.trigger(LINE, set={"compute.device": "cuda"}, force=True, reason="no GPU is here")
    assert airflow.wait(LINE, failing) == "failed"
    run = last(place, LINE).run
    before = [version["version"] for version in place.read("versions", LINE)["versions"]]
    said = stolen(place, run, honest, missing(place, run))
    assert "clone: taken" in said
    for ref in ("refs/heads/main", "refs/tags/model@v0.0.9", "refs/heads/archive"):
        [answer] = [line for line in said if line.startswith(f"push {ref}:")]
        assert "retain: the role step" in answer, answer
    assert "delete: taken" not in said
    assert "push the run: taken" in said, said
    done = subprocess.run(
        [sys.executable, "-m", "cl_steps", "step", "promote", f"--workspace={place.folder / LINE}", f"--run={run}"],
        env=place.environment("trusted"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5, done.stderr
    assert f"what gate found in run {run} does not count" in done.stderr
    assert [version["version"] for version in place.read("versions", LINE)["versions"]] == before
    assert "all as it should be" in place.retain("verify", "--all", f"--dir={place.folder / LINE}")


def missing(place: Site, run: str) -> list[str]:
    """The stages that a run did not come to."""
    ref = f"refs/heads/runs/{run}"
    with reading(f"{place.git}/{LINE}.git") as main:
        git(main.folder, "fetch", "-q", "origin", f"+{ref}:{ref}")
        lock = yaml.safe_load(text(main.folder, "show", f"{ref}:dvc.lock"))
    return [step.name for step in STAGES if step.name not in lock["stages"]]


def stolen(place: Site, run: str, honest: str, names: list[str]) -> list[str]:
    """What a thief's program says in a pod that is otherwise the one of `update`."""
    pod = pod_of(place, "update", run)
    pod["metadata"]["name"] = "stolen"
    [container] = pod["spec"]["containers"]
    container["command"] = ["python", "-c", THIEF, f"{place.git}/{LINE}.git", run, honest, ",".join(names)]
    del container["args"]
    kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    try:
        place.wait_for_log("stolen", "done", seconds=180)
        return kubectl("-n", NAMESPACE, "logs", "stolen").splitlines()
    finally:
        kubectl("-n", NAMESPACE, "delete", "pod", "stolen", "--grace-period=0", "--force")


def pod_of(place: Site, step: str, run: str = "r") -> dict[str, Any]:
    """A step's pod of the line, as Airflow makes it."""
    line = entry(LINE, place.git)
    settings = {"RETAIN_STORE_URL": line["store"], "RETAIN_WORK": line["work"], "RETAIN_LANDING": line["landing"]}
    job = Job(step, ("step", step, "--run", run), run, role=STEPS[step].role)
    return manifest(Profile(**PROFILES["cpu"]), LINE, Secrets(**line["secrets"]), settings, job)


def tried(pod: dict[str, Any]) -> str:
    """What Kubernetes says of a pod; nothing where it would take it."""
    command = ["kubectl", "apply", "--dry-run=server", "-f", "-"]
    done = subprocess.run(command, input=json.dumps(pod), capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def test_the_policy_lets_no_key_near_anything_but_the_checks_container(place: Site) -> None:
    pod = pod_of(place, "gate")
    assert tried(pod) == ""
    alone = deepcopy(pod)
    del alone["spec"]["initContainers"]
    assert "the gate's checks run in a container of their own" in tried(alone)
    together = deepcopy(pod)
    together["spec"]["shareProcessNamespace"] = True
    assert "runs retain's own entrypoint, and nothing beside it" in tried(together)
    for name in ("judge", "credentials"):
        mounted = deepcopy(pod)
        [beside] = mounted["spec"]["initContainers"]
        beside["volumeMounts"].append({"name": name, "mountPath": f"/etc/retain/{name}"})
        assert "is the checks' container, with one empty folder and nothing else" in tried(mounted)
    other = deepcopy(pod)
    other["spec"]["initContainers"][0]["command"] = ["cat", "/room"]
    assert "is the checks' container" in tried(other)
