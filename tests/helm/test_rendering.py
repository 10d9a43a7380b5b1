"""What the chart makes: valid objects, a lines.yaml that Airflow reads, the least rights, the fewest ways out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from gotpl.errors import TemplateError

from cl_steps.__main__ import COMMANDS, _parser
from cl_steps.orchestration.pods.manifest import BELIEVES, Job, manifest
from cl_steps.orchestration.pods.nodes import SERVICE, indexed
from cl_steps.orchestration.registry import Entry, read_lines
from cl_steps.run.machine import PORT
from tests.helm.chart import CASES, CHART, RELEASE, case, defaults, manifests, merged, named, pods, read, render

POLICY = "ValidatingAdmissionPolicy"
CLUSTER = {"Namespace", "PriorityClass", "ClusterQueue", "ResourceFlavor", POLICY, f"{POLICY}Binding"}
RIGHTS = {
    "retain-airflow": {
        ("", "pods"): ["create", "delete", "get", "list", "patch", "watch"],
        ("", "pods/log"): ["get"],
        ("", "events"): ["list"],
    },
    "retain-reaper": {("", "pods"): ["delete", "list"]},
}
JOB_RIGHTS = {
    "retain-airflow": {
        ("batch", "jobs"): ["create", "delete", "get", "list"],
        ("batch", "jobs/status"): ["get"],
    },
    "retain-reaper": {("batch", "jobs"): ["delete", "list"]},
}
"""Where a profile has several nodes, too."""


@pytest.mark.parametrize("name", CASES)
def test_every_object_is_one_that_kubernetes_knows(name: str) -> None:
    found = manifests(case(name))
    for wanted in found:
        if not wanted["apiVersion"].startswith("kueue."):
            kubernetes_validate.validate(wanted, "1.36", strict=True)
        assert ("namespace" in wanted["metadata"]) is (wanted["kind"] not in CLUSTER), wanted["metadata"]["name"]
    names = [(wanted["kind"], wanted["metadata"]["name"]) for wanted in found]
    assert len(names) == len(set(names))
    assert all(len(name) <= 52 for kind, name in names if kind == "CronJob")


def lines_of(values: dict[str, Any], folder: Path) -> tuple[Entry, ...]:
    """What Airflow reads out of the ConfigMap."""
    config = named(manifests(values), "ConfigMap")["retain-lines"]
    (folder / "lines.yaml").write_text(config["data"]["lines.yaml"], encoding="utf-8")
    return read_lines(folder / "lines.yaml")


@pytest.mark.parametrize("name", CASES)
def test_airflow_reads_the_lines(name: str, tmp_path: Path) -> None:
    values = case(name)
    entries = lines_of(values, tmp_path)
    assert [entry.name for entry in entries] == [line["name"] for line in values["lines"]]
    for entry, line in zip(entries, values["lines"], strict=True):
        assert entry.profile.image == values["images"]["steps"]
        assert entry.profile.namespace == RELEASE["Namespace"]
        assert entry.profile.service_account == "retain-step"
        assert entry.credentials == "/etc/retain/credentials/airflow"
        assert entry.secrets is not None
        assert entry.secrets.trusted == line["secrets"]["trusted"]


def test_what_a_line_says_goes_before_what_the_chart_fills_in(tmp_path: Path) -> None:
    values = case("minimal")
    values["profiles"]["cpu"] |= {"image": "registry.example/other:1", "service_account": "other"}
    values["lines"][0] |= {"credentials": "/etc/other", "schedule": None, "overdue_hours": None}
    (entry,) = lines_of(values, tmp_path)
    assert (entry.profile.image, entry.profile.service_account) == ("registry.example/other:1", "other")
    assert (entry.credentials, entry.schedule, entry.overdue_hours) == ("/etc/other", None, None)


def test_pods_are_started_by_a_connection_that_the_chart_gives_airflow(tmp_path: Path) -> None:
    names = {variable["name"] for variable in defaults()["airflow"]["env"]}
    (entry,) = lines_of(case("airflow"), tmp_path)
    assert f"AIRFLOW_CONN_{entry.profile.connection.upper()}" in names
    (entry,) = lines_of(case("minimal"), tmp_path)
    assert entry.profile.connection == ""


def test_no_line_is_no_mistake(tmp_path: Path) -> None:
    values = {"network": {"enabled": False}}
    assert lines_of(values, tmp_path) == ()
    assert {"retain-watch"} & {name for name, _ in pods(manifests(values))} == set()


@pytest.mark.parametrize("name", CASES)
def test_roles_grant_exactly_this(name: str) -> None:
    found = manifests(case(name))
    roles = {
        role: {(rule["apiGroups"][0], rule["resources"][0]): rule["verbs"] for rule in spec["rules"]}
        for role, spec in named(found, "Role").items()
    }
    several = any(profile.get("nodes", 1) > 1 for profile in case(name)["profiles"].values())
    assert roles == {role: {**rights, **(JOB_RIGHTS[role] if several else {})} for role, rights in RIGHTS.items()}
    assert named(found, "ClusterRole") == named(found, "ClusterRoleBinding") == {}
    home = case(name).get("accounts", {}).get("airflowNamespace", RELEASE["Namespace"])
    bound = {
        role: (binding["roleRef"]["name"], [(who["name"], who["namespace"]) for who in binding["subjects"]])
        for role, binding in named(found, "RoleBinding").items()
    }
    assert bound == {
        "retain-airflow": ("retain-airflow", [("retain-airflow", home)]),
        "retain-reaper": ("retain-reaper", [("retain-reaper", RELEASE["Namespace"])]),
    }


def ways(found: list[dict[str, Any]], labels: dict[str, str]) -> set[tuple[str, int, str]]:
    """Where a pod with those labels may go: to whom, which port, which protocol."""
    out = set()
    for policy in named(found, "NetworkPolicy").values():
        if not matches(policy["spec"]["podSelector"], labels):
            continue
        for rule in policy["spec"].get("egress") or []:
            for peer in rule["to"]:
                whom = peer["ipBlock"]["cidr"] if "ipBlock" in peer else json.dumps(peer, sort_keys=True)
                out |= {
                    (whom, port["port"], port["protocol"]) for port in rule.get("ports", [{"port": 0, "protocol": ""}])
                }
    return out


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(labels.get(term["key"]) in term["values"] for term in selector.get("matchExpressions", []))


def test_everything_is_denied_first() -> None:
    policy = named(manifests(case("minimal")), "NetworkPolicy")["retain-default-deny"]["spec"]
    assert policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_watch_alone_remembers_where_main_was_on_the_claim_that_is_named() -> None:
    found = manifests(case("minimal") | {"watch": {"heads": "retain-heads"}})
    mounting = {owner for owner, pod in pods(found) if "persistentVolumeClaim" in str(pod["volumes"])}
    assert mounting == {"retain-watch"}
    assert {"name": "heads", "persistentVolumeClaim": {"claimName": "retain-heads"}} in watch_of(found)["volumes"]
    assert watch_of(found)["containers"][0]["args"][-2:] == ["--heads", "/heads/heads.json"]
    assert "heads" not in str(watch_of(manifests(case("minimal"))))


def watch_of(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The spec of the watch's pod."""
    return next(pod for owner, pod in pods(found) if owner == "retain-watch")


def test_a_step_reaches_dns_git_and_the_store_alone(tmp_path: Path) -> None:
    values = case("minimal")
    (entry,) = lines_of(values, tmp_path)
    pod = manifest(entry.profile, entry.name, entry.secrets, entry.places, Job("update", ("step",), "run", gpu=True))
    out = ways(manifests(values), pod["metadata"]["labels"])
    dns = {way for way in out if way[1] == 53}
    assert {(port, protocol) for _, port, protocol in dns} == {(53, "UDP"), (53, "TCP")}
    assert out - dns == {("192.0.2.10/32", 443, "TCP"), ("192.0.2.20/32", 443, "TCP")}


@pytest.mark.parametrize(
    ("owner", "reaches"),
    [
        ("retain-watch", {("192.0.2.10/32", 443)}),
        ("retain-reaper", {("192.0.2.1/32", 6443)}),
        ("test-my-line", {("192.0.2.10/32", 443), ("192.0.2.20/32", 443)}),
    ],
)
def test_our_jobs_reach_what_they_need(owner: str, reaches: set[tuple[str, int]]) -> None:
    found = manifests(case("minimal"))
    starter = next(
        wanted for wanted in found if wanted["metadata"]["name"] == owner and wanted["kind"] in ("CronJob", "Pod")
    )
    labels = starter["metadata"]["labels"]
    assert {(whom, port) for whom, port, _ in ways(found, labels) if port != 53} == reaches


def test_airflow_reaches_its_own_and_what_is_named() -> None:
    found = manifests(case("airflow"))
    own = {"tier": "airflow", "release": RELEASE["Name"]}
    scheduler = {(whom, port) for whom, port, _ in ways(found, {**own, "component": "scheduler"})}
    assert {("192.0.2.1/32", 6443), ("192.0.2.10/32", 443), ("192.0.2.30/32", 587)} < scheduler
    assert any("postgres" in whom and port == 5432 for whom, port in scheduler)
    web = {(whom, port) for whom, port, _ in ways(found, {**own, "component": "api-server"})}
    assert ("192.0.2.20/32", 443) in web
    assert not {("192.0.2.1/32", 6443), ("192.0.2.10/32", 443)} & web
    ui = named(found, "NetworkPolicy")["retain-airflow-ui"]["spec"]
    assert ui["ingress"][0]["ports"] == [{"port": 8080, "protocol": "TCP"}]


@pytest.mark.parametrize("name", CASES)
def test_every_command_is_one_that_retain_has(name: str) -> None:
    known = {command.name for command in COMMANDS}
    ran = 0
    for _, pod in pods(manifests(case(name))):
        (container,) = pod["containers"]
        if "command" not in container:
            assert _parser().parse_args([str(word) for word in container["args"]]).command in known
            ran += 1
    assert ran


def test_a_backup_takes_keys_only_from_lines_that_have_them() -> None:
    found = dict(pods(manifests(case("full"))))
    first, second = (found[f"backup-{line}-line"] for line in ("first", "second"))
    secrets = [volume["secret"]["secretName"] for volume in first["volumes"] if "secret" in volume]
    assert secrets == ["retain-backup", "first-signing", "retain-passphrase"]
    assert first["containers"][0]["args"][:5] == [
        "backup", "https://git.example/lines/first-line.git", "s3://backups/retain/first-line", "--keep", "30",
    ]  # fmt: skip
    assert "--keys" in first["containers"][0]["args"]
    assert "--keys" not in second["containers"][0]["args"]


def test_backups_of_lines_begin_in_minutes_of_their_own() -> None:
    jobs = named(manifests(case("full")), "CronJob")
    schedules = [jobs[f"backup-{line}-line"]["spec"]["schedule"] for line in ("first", "second")]
    assert schedules == ["58 3 * * *", "34 3 * * *"]


def test_the_nodes_of_an_update_reach_each_other_and_nobody_else_reaches_them(tmp_path: Path) -> None:
    found = manifests(case("gpu-kueue"))
    entry = next(entry for entry in lines_of(case("gpu-kueue"), tmp_path) if entry.profile.nodes == 2)
    pod = manifest(entry.profile, entry.name, entry.secrets, entry.places, Job("update", ("step",), "run", gpu=True))
    template = indexed(pod, 2)["spec"]["template"]
    labels, service = template["metadata"]["labels"], named(found, "Service")[SERVICE]["spec"]
    assert template["spec"]["subdomain"] == SERVICE
    assert service["selector"].items() <= labels.items()
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    assert service["ports"][0]["port"] == PORT
    policy = named(found, "NetworkPolicy")["retain-nodes"]["spec"]
    [peer] = policy["ingress"][0]["from"]
    assert matches(policy["podSelector"], labels)
    assert peer == policy["egress"][0]["to"][0] == {"podSelector": policy["podSelector"]}
    assert not matches(peer["podSelector"], pod["metadata"]["labels"])
    assert "--jobs" in dict(pods(found))["retain-reaper"]["containers"][0]["args"]
    for other in ("minimal", "full"):
        alone = manifests(case(other))
        assert named(alone, "Service") == {}
        assert "retain-nodes" not in named(alone, "NetworkPolicy")
        assert "--jobs" not in dict(pods(alone))["retain-reaper"]["containers"][0]["args"]


def test_kueue_covers_what_a_step_asks_for(tmp_path: Path) -> None:
    found = manifests(case("gpu-kueue"))
    queue = named(found, "ClusterQueue")["retain"]["spec"]["resourceGroups"][0]
    entry = lines_of(case("gpu-kueue"), tmp_path)[0]
    pod = manifest(entry.profile, entry.name, entry.secrets, entry.places, Job("update", ("step",), "run", gpu=True))
    assert set(pod["spec"]["containers"][0]["resources"]["requests"]) <= set(queue["coveredResources"])
    assert [flavor["name"] for flavor in queue["flavors"]] == ["gpu", "plain"]
    assert all([r["name"] for r in flavor["resources"]] == queue["coveredResources"] for flavor in queue["flavors"])
    assert pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] in named(found, "LocalQueue")


MISTAKES = {
    "two lines named": lambda values: values["lines"].append(values["lines"][0]),
    "wants the profile": lambda values: values["lines"][0].update(profile="gpu"),
    "network.git names no place": lambda values: values["network"].update(git=[]),
    "network.store names no place": lambda values: values["network"].update(store=[]),
    "network.apiServer names no place": lambda values: values["network"].update(apiServer=[]),
    "network.database names no place": lambda values: values.update(airflow={"enabled": True}),
    "backup.enabled needs": lambda values: values.update(backup={"enabled": True}),
    "test.lines names": lambda values: values.update(test={"lines": ["other"]}),
    "kueue.flavors": lambda values: values.update(
        kueue={
            "flavors": [
                {"name": "a", "quota": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"}},
                {"name": "b", "quota": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi", "example.org/x": "1"}},
            ]
        }
    ),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_told_before_the_night(words: str) -> None:
    values = case("minimal")
    manifests(values)
    MISTAKES[words](values)
    with pytest.raises(TemplateError, match=words):
        render(values)


def test_the_notes_tell_the_next_command() -> None:
    notes = render(case("minimal"))["NOTES.txt"]
    assert "helm test night --namespace retain --logs" in notes
    assert "retain_my-line" in notes
    assert "write a profile and a line" in render({"network": {"enabled": False}})["NOTES.txt"]
    assert "statefulset/night-scheduler" in render(case("airflow"))["NOTES.txt"]


def test_what_airflow_is_told_is_what_this_chart_makes() -> None:
    airflow = defaults()["airflow"]
    found = manifests(case("airflow"))
    for part in ("scheduler", "triggerer"):
        assert airflow[part]["serviceAccount"] == {"create": False, "name": "retain-airflow"}
    for part in ("dagProcessor", "apiServer", "statsd", "migrateDatabaseJob", "createUserJob"):
        assert airflow[part]["serviceAccount"] == {"automountServiceAccountToken": False}
    assert [volume["configMap"]["name"] for volume in airflow["volumes"]] == list(named(found, "ConfigMap"))
    assert airflow["env"][0]["value"] == f"{airflow['volumeMounts'][0]['mountPath']}/lines.yaml"
    assert airflow["createUserJob"]["useHelmHooks"] is airflow["migrateDatabaseJob"]["useHelmHooks"] is False
    assert airflow["rbac"] == {"create": False}
    reaper = dict(pods(found))["retain-reaper"]["containers"][0]
    assert reaper["image"] == "registry.example/retain-airflow:0.2.0"
    digest = "sha256:" + "0" * 64
    pinned = merged(case("airflow"), {"airflow": {"images": {"airflow": {"digest": digest}}}})
    assert dict(pods(manifests(pinned)))["retain-reaper"]["containers"][0]["image"].endswith(f"airflow@{digest}")


def test_the_pinned_chart_of_airflow_knows_what_it_is_told() -> None:
    """`airflow-1.22.0.txt`: which of the keys that we pass its schema has (made by hand from that chart)."""
    (dependency,) = read(CHART / "Chart.yaml")["dependencies"]
    known = set((Path(__file__).parent / f"airflow-{dependency['version']}.txt").read_text().split())
    assert set(keys(defaults()["airflow"])) - {"enabled"} == known


def keys(values: Any, path: str = "") -> list[str]:
    """Dotted paths of all keys."""
    if not isinstance(values, dict):
        return []
    here = [f"{path}{key}" for key in values]
    return here + [deep for key, value in values.items() for deep in keys(value, f"{path}{key}.")]


def test_the_lock_is_of_this_dependency() -> None:
    about, lock = read(CHART / "Chart.yaml"), read(CHART / "Chart.lock")
    (wanted,), (locked,) = about["dependencies"], lock["dependencies"]
    ordered = {key: wanted[key] for key in ("name", "version", "repository", "condition")}
    pinned = {key: locked[key] for key in ("name", "version", "repository")}
    digest = hashlib.sha256(json.dumps([[ordered], [pinned]], separators=(",", ":")).encode()).hexdigest()
    assert lock["digest"] == f"sha256:{digest}"


def test_the_readme_names_every_secret_and_value() -> None:
    page = (CHART / "README.md").read_text(encoding="utf-8")
    assert [name for name in yaml.safe_load((CHART / "values.yaml").read_text()) if f"`{name}" not in page] == []
    for secret in ("retain-airflow-git", "retain-airflow-database", "retain-airflow-fernet", "retain-airflow-jwt"):
        assert f"`{secret}`" in page


def everywhere(values: dict[str, Any], folder: Path) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Metadata and spec of every pod that comes of the release: what the chart starts, and what Airflow does."""
    objects = manifests(values)
    specs = dict(pods(objects))
    metadata = {found["metadata"]["name"]: found["metadata"] for found in objects if found["kind"] == "Pod"}
    for name, job in named(objects, "CronJob").items():
        metadata[name] = job["spec"]["jobTemplate"]["spec"]["template"]["metadata"]
    found = {name: (metadata[name], spec) for name, spec in specs.items()}
    for entry in lines_of(values, folder):
        for gpu in (False, True):
            pod = manifest(entry.profile, entry.name, entry.secrets, entry.places, Job("x", ("x",), "r", gpu=gpu))
            found[f"{entry.name} {gpu}"] = (pod["metadata"], pod["spec"])
    return found


def test_what_is_said_of_pods_is_said_of_every_pod(tmp_path: Path) -> None:
    said = case("full")["pods"]
    found = everywhere(case("full"), tmp_path)
    assert len(found) > 8
    for where, (metadata, spec) in found.items():
        assert said["labels"].items() <= metadata["labels"].items(), where
        assert said["annotations"].items() <= metadata["annotations"].items(), where
        assert said["node_selector"].items() <= spec["nodeSelector"].items(), where
        assert spec["tolerations"][0] == {
            "key": "dedicated", "value": "retain", "effect": "NoExecute", "tolerationSeconds": 60,
            **({"operator": "Equal"} if "operator" in spec["tolerations"][0] else {}),
        }, where  # fmt: skip
        assert spec["affinity"] == said["affinity"], where
        [container] = spec["containers"]
        told = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert said["environment"].items() <= told.items(), where
        assert {told[name] for name in BELIEVES} == {"/etc/retain/authorities/all.pem"}, where
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert mounts["authorities"]["readOnly"] is True, where
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert volumes["authorities"]["configMap"]["name"] == "authorities", where


def test_a_profile_says_otherwise_for_its_steps(tmp_path: Path) -> None:
    values = case("full")
    values["profiles"]["gpu"] |= {"node_selector": {"kubernetes.io/arch": "arm64"}, "environment": {"A": "b"}}
    (entry, *_) = lines_of(values, tmp_path)
    assert entry.profile.node_selector == {"kubernetes.io/arch": "arm64"}
    assert entry.profile.environment["A"] == "b"


def test_pull_secrets_in_both_of_their_forms() -> None:
    values = merged(case("minimal"), {"airflow": {"imagePullSecrets": [{"name": "one"}, "two"]}})
    found = dict(pods(manifests(values)))
    assert found["retain-reaper"]["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]


@pytest.mark.parametrize("schedule", ["H 3 * * THU", "H 3 * MAR-MAR THU,1", "30 3 * * THU", "@hourly"])
def test_only_the_minute_is_the_lines_own(schedule: str) -> None:
    backup = {"enabled": True, "to": "s3://b/x", "secret": "s", "schedule": schedule}
    found = named(manifests(merged(case("minimal"), {"backup": backup})), "CronJob")["backup-my-line"]["spec"][
        "schedule"
    ]
    first, *rest = found.split(" ")
    assert rest == schedule.split(" ")[1:]
    assert first == schedule.split(" ", maxsplit=1)[0] or (first.isdecimal() and int(first) < 60)
