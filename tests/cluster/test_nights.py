"""The demo line's nights on a cluster, every step a pod under the `restricted` standard, and what may go wrong.

    make test-cluster        needs KUBECONFIG, kubectl, and the two images (tests/cluster/README.md)

The tests run in the order of the file: each night builds on the one before.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cl_steps.documents import json_text
from cl_steps.pipeline import STAGES
from cl_steps.repository.git import git, text
from cl_steps.repository.mainline import Change, Mainline, reading
from tests.cluster.airflow import Airflow
from tests.cluster.site import NAMESPACE, STEPS_IMAGE, Site, kubectl
from tests.cluster.trial import LINES, evict, land, last, nothing_is_left, wait_for_question
from tests.lasting import documents

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]


def test_a_night_that_brings_nothing_new(place: Site, airflow: Airflow) -> None:
    land(place, "demo", 1)
    run = airflow.trigger("demo")
    assert airflow.wait("demo", run) == "success", airflow.tasks("demo", run)
    event = last(place, "demo")
    assert (event.outcome, event.trigger.by) == ("no_update", "admin")
    nothing_is_left(place, "demo")


def test_airflow_is_killed_while_a_pod_trains_and_the_same_pod_goes_on(place: Site, airflow: Airflow) -> None:
    land(place, "demo", 2)
    run = airflow.trigger("demo")
    pod = place.wait_for_pod("demo", "update")
    airflow.kill()
    time.sleep(5)
    [working] = place.pods("retain.dev/line=demo")
    assert working["metadata"]["name"] == pod
    airflow.start()
    assert airflow.wait("demo", run) == "success", airflow.tasks("demo", run)
    event = last(place, "demo")
    assert (event.outcome, event.version) == ("promoted", "v2")
    nothing_is_left(place, "demo")
    [asset] = [found for found in airflow.asset_events() if found["extra"].get("version")]
    assert (asset["extra"]["version"], asset["extra"]["parent"]) == ("v2", "v1")


def test_pods_are_evicted_preempted_and_killed_and_both_servers_rest(place: Site, airflow: Airflow) -> None:
    land(place, "demo", 3)
    run = airflow.trigger("demo")
    pod = place.wait_for_pod("demo", "update")
    place.wait_for_log(pod, "update: steps")
    evict(pod)
    second = place.wait_for_other_pod("demo", "update", pod)
    place.wait_for_log(second, "goes on from step")
    with something_more_urgent():
        place.wait_for_end(second)
    place.wait_for_other_pod("demo", "update", second)
    third = place.wait_for_pod("demo", "evaluate")
    kubectl("-n", NAMESPACE, "delete", "pod", third, "--grace-period=0", "--force")
    place.wait_for_other_pod("demo", "evaluate", third)
    place.wait_for_pod("demo", "gate")
    place.down(60)
    assert airflow.wait("demo", run) == "success", airflow.tasks("demo", run)
    event = last(place, "demo")
    assert (event.outcome, event.version) == ("promoted", "v3")
    nothing_is_left(place, "demo")


@contextmanager
def something_more_urgent() -> Iterator[None]:
    """A pod of higher priority that has room only where the training pod is: the scheduler preempts that one."""
    kubectl("create", "priorityclass", "retain-trial-urgent", "--value=1000000")
    container = {
        "name": "urgent",
        "image": STEPS_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "600"],
        "resources": {"requests": {"cpu": "1200m"}},
    }
    spec = {"priorityClassName": "retain-trial-urgent", "terminationGracePeriodSeconds": 0, "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "retain-trial-urgent"}, "spec": spec}
    kubectl("-n", "default", "apply", "-f", "-", stdin=json.dumps(pod))
    try:
        yield
    finally:
        kubectl("-n", "default", "delete", "pod", "retain-trial-urgent", "--grace-period=0", "--force")
        kubectl("delete", "priorityclass", "retain-trial-urgent")


def test_poison_is_held_a_person_asked_and_the_answer_on_record(place: Site, airflow: Airflow) -> None:
    land(place, "demo", 4)
    run = airflow.trigger("demo")
    wait_for_question(airflow, "demo", run)
    assert last(place, "demo").outcome == "held"
    airflow.answer("demo", run, "Reject", "noise and wrong captions")
    assert airflow.wait("demo", run) == "success", airflow.tasks("demo", run)
    with reading(f"{place.git}/demo.git") as main:
        [answer] = main.ledger().answers.values()
    assert (answer.yes, answer.by, answer.reason) == (False, "admin", "noise and wrong captions")


def test_memory_that_runs_out_is_met_with_smaller_parts_and_then_said(place: Site, airflow: Airflow) -> None:
    land(place, "tight", 2)
    run = airflow.trigger("tight")
    assert airflow.wait("tight", run) == "failed"
    state, tries = airflow.tasks("tight", run)["update"]
    assert (state, tries) == ("failed", 6)
    assert "the memory of its container ran out" in airflow.log("tight", run, "update", 6)
    assert "in 8 parts" in airflow.log("tight", run, "update", 3)
    assert last(place, "tight").outcome == "failed"
    nothing_is_left(place, "tight")


def test_two_runs_of_one_line_race_and_one_version_comes_of_it(place: Site, airflow: Airflow) -> None:
    """A person's night on this machine against Airflow's pods, from the same batch; two lines at once besides."""
    before = place.read("versions", "demo")["versions"]
    batch = next(event["run"] for event in place.read("runs", "demo")["runs"] if event["version"] == "v3")
    form = {"batch": batch, "force": True, "reason": "a race"}
    first = airflow.trigger("demo", **form)
    night = [sys.executable, "-m", "cl_steps", "night", str(place.folder / "demo"), "--batch", batch]
    other = subprocess.Popen(
        [*night, "--force", "--reason", "a race"],
        env=place.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert airflow.wait("demo", first) == "success", airflow.tasks("demo", first)
    said = other.communicate(timeout=1800)[0]
    outcomes = [event["outcome"] for event in place.read("runs", "demo")["runs"][-2:]]
    versions = place.read("versions", "demo")["versions"]
    assert outcomes.count("promoted") <= 1, said
    assert len(versions) == len(before) + outcomes.count("promoted")
    assert set(outcomes) <= {"promoted", "stale", "rejected", "held"}
    nothing_is_left(place, "demo")


def test_two_nodes_train_together_one_is_disrupted_and_a_person_says_yes(place: Site, airflow: Airflow) -> None:
    land(place, "wide", 2)
    run = airflow.trigger("wide", set={"update.steps": 120}, reason="a trial")
    pod = place.wait_for_pod("wide", "update", seconds=900)
    place.wait_for_log(pod, "update: steps")
    assert len(place.pods("retain.dev/line=wide,retain.dev/step=update")) == 2
    evict(pod)
    wait_for_question(airflow, "wide", run)
    assert last(place, "wide").outcome == "held"
    airflow.answer("wide", run, "Approve", "as good as it looks")
    assert airflow.wait("wide", run) == "success", airflow.tasks("wide", run)
    with reading(f"{place.git}/wide.git") as main:
        record = documents(main)[-1]
    assert (record["version"], record["approval"]["by"], record["approval"]["answer"]) == ("v2", "admin", "yes")
    log = airflow.log("wide", run, "update", 1)
    assert "node 0: " in log
    assert "node 1: " in log
    assert airflow.tasks("wide", run)["update"] == ("success", 1)
    nothing_is_left(place, "wide")
    assert kubectl("-n", NAMESPACE, "get", "jobs", "-o", "name").strip() == ""


def test_ops_roll_back_by_a_form_and_serving_is_told(place: Site, airflow: Airflow) -> None:
    run = airflow.trigger("rollback", line="demo", version="v2", reason="{{ 1 }} $(id) `id`\nRun-Id: x")
    assert airflow.wait("rollback", run) == "success", airflow.tasks("rollback", run)
    assert place.read("status", "demo")["champion"] == "v2"
    with reading(f"{place.git}/demo.git") as main:
        [event] = main.ledger().rollbacks
    assert (event.by, event.through) == ("admin", "airflow")
    assert event.reason == "{{ 1 }} $(id) `id`\nRun-Id: x"
    newest = max(airflow.asset_events(), key=lambda found: found["timestamp"])
    assert newest["extra"]["version"] == "v2"
    nothing_is_left(place, "demo")


def test_an_audit_finds_everything_signed_and_whole(place: Site, airflow: Airflow) -> None:
    """Let run, it makes up for last Saturday; a line whose memory is too small for a model hides no other."""
    airflow.wait_for_dag("audit")
    end, ended = time.monotonic() + 1200, {}
    while {ended.get(name) for name in ("demo", "wide")} != {"success"}:
        assert time.monotonic() < end, ended
        time.sleep(5)
        runs = airflow.ask("GET", "/api/v2/dags/retain_audit/dagRuns")["dag_runs"]
        ended = {name: state for run in runs for name, (state, _) in airflow.tasks("audit", run["dag_run_id"]).items()}
    for name in LINES:
        words = place.retain("verify", "--all", f"--dir={place.folder / name}")
        assert "signatures checked; all as it should be" in words


def test_every_version_has_its_record_and_the_credentials_of_steps_cannot_make_one(place: Site) -> None:
    versions = [version["version"] for version in place.read("versions", "demo")["versions"]]
    assert versions[:3] == ["v1", "v2", "v3"]
    with reading(f"{place.git}/demo.git") as main:
        records = documents(main)
        assert [record["version"] for record in records] == versions
        assert all(record["environment"]["image"] == STEPS_IMAGE for record in records[1:3])
        forged = main.commit(Change({"versions/v0009.json": b"{}"}, "forged"))
        for user in ("step", "opener"):
            for ref in ("refs/heads/main", "refs/tags/model@v0.0.9"):
                assert f"retain: the role {user}" in pushed(place, main, user, f"{forged}:{ref}")


def test_an_evaluation_that_somebody_forged_promotes_nothing(place: Site) -> None:
    """With a step's credentials the verdict of a rejected or held run becomes `promote`; then the trusted step runs."""
    before = [version["version"] for version in place.read("versions", "demo")["versions"]]
    with reading(f"{place.git}/demo.git") as main:
        ended = main.ledger().runs.values()
        run = next(event.run for event in ended if event.outcome in ("held", "rejected", "stale"))
        ref = f"refs/heads/runs/{run}"
        git(main.folder, "fetch", "-q", "origin", f"+{ref}:{ref}")
        for step in STAGES:
            report = {"schema": 1, "step": step.name, "run": run, "status": "done", "code": "0" * 64, "figures": {}}
            verdict = {"gate": "promote", "drift": "drifted", "ingest": "ok"}.get(step.name)
            content = json_text({**report, "verdict": verdict, "why": "as I say"}).encode()
            forged = main.commit(Change({step.report: content}, "forged"), parent=text(main.folder, "rev-parse", ref))
            git(main.folder, "update-ref", ref, forged)
        assert pushed(place, main, "step", f"{ref}:{ref}") == "", "a step may write reports"
        other = main.commit(Change({"params.yaml": b"{}"}, "forged"), parent=text(main.folder, "rev-parse", ref))
        assert "may not change params.yaml" in pushed(place, main, "step", f"{other}:{ref}")
    done = subprocess.run(
        [sys.executable, "-m", "cl_steps", "step", "promote", f"--workspace={place.folder / 'demo'}", f"--run={run}"],
        env=place.environment("trusted"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (2, 4, 5), done.stderr
    assert [version["version"] for version in place.read("versions", "demo")["versions"]] == before


def pushed(place: Site, main: Mainline, user: str, refs: str) -> str:
    """What the Git server says of a push with a user's credentials; nothing where it took it."""
    push = ["git", "-C", str(main.folder), "push", f"{place.git}/demo.git", refs]
    done = subprocess.run(push, env=place.environment(user), capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""
