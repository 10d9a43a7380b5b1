"""`values.schema.json`: the defaults and every case pass, and nothing that is not meant does."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import combinations_with_replacement, product
from typing import Any

import jsonschema
import pytest

from cl_steps.orchestration import schedule as schedules
from cl_steps.orchestration.pods.profiles import (
    Ask,
    Authorities,
    Checks,
    Notify,
    Profile,
    Resources,
    Secrets,
    Toleration,
)
from cl_steps.orchestration.registry import TAKEN, Entry
from tests.helm.chart import CASES, CHART, SCHEMA, case, check, defaults, merged

FREE = {
    "hard", "nodeLabels", "node_selector", "pods", "quota", "stepAnnotations", "arguments", "airflow", "global",
    "labels", "annotations", "affinity", "environment",
}  # fmt: skip
"""Mappings whose keys are Kubernetes' or somebody else's; `quota` of a flavor, `pods` of a place in the network."""
TYPED = {
    "profile": Profile,
    "stepResources": Resources,
    "checksContainer": Checks,
    "toleration": Toleration,
    "authorities": Authorities,
    "line": Entry,
    "lineSecrets": Secrets,
    "ask": Ask,
    "notify": Notify,
}


@pytest.mark.parametrize("name", CASES)
def test_every_case_passes(name: str) -> None:
    check(case(name))
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def mappings(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where values hold a mapping, down to those with free keys."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    if isinstance(values, dict):
        yield path
    for key, value in items:
        if key not in FREE or (key in ("pods", "quota") and path == ()):
            yield from mappings(value, (*path, key))


def put(values: Any, path: tuple[Any, ...], key: Any, value: Any) -> Any:
    """The values with one more key at that path."""
    found = copy.deepcopy(values)
    place = found
    for part in path:
        place = place[part]
    place[key] = value
    return found


@pytest.mark.parametrize("name", CASES)
def test_an_unknown_key_is_refused_everywhere(name: str) -> None:
    values = merged(defaults(), case(name))
    places = [path for path in mappings(values) if path != ("profiles",)]
    assert len(places) > 20
    for path in places:
        with pytest.raises(jsonschema.ValidationError, match="surprise"):
            check(put(values, path, "surprise", "x"))


def test_the_defaults_name_every_key_of_the_schema() -> None:
    values = defaults()
    for name, schema in SCHEMA["properties"].items():
        if name in ("airflow", "global"):
            continue
        assert name in values, name
        assert set(schema.get("properties", {})) <= set(values[name] or {}), name


@pytest.mark.parametrize("name", TYPED)
def test_profiles_and_lines_have_the_keys_that_airflow_reads(name: str) -> None:
    # Names of variables that local processes may see: the chart's steps are pods, and take theirs from the profile.
    known = set(TYPED[name].model_fields) - ({"environment"} if name == "line" else set())
    assert set(SCHEMA["definitions"][name]["properties"]) == known


WRONG = {
    "a tag that moves": {"images": {"steps": "retain-steps:latest"}},
    "no tag": {"images": {"steps": "registry.example/retain-steps"}},
    "a number for text": {"git": {"secret": 5}},
    "text for yes or no": {"network": {"enabled": "false"}},
    "an inline secret": {"git": {"secret": "https://me:hunter2@git.example"}},
    "a port out of range": {"network": {"git": [{"cidr": "192.0.2.1/32", "port": 70000}]}},
    "no CIDR": {"network": {"git": [{"cidr": "git.example", "port": 443}]}},
    "CIDR and namespace": {"network": {"git": [{"cidr": "192.0.2.1/32", "namespace": "git", "port": 443}]}},
    "neither": {"network": {"git": [{"port": 443}]}},
    "five fields but four": {"watch": {"schedule": "0 * * *"}},
    "a watch that never comes": {"watch": {"schedule": "17 * 30 FEB *"}},
    "no backup kept": {"backup": {"keep": 0}},
    "unbounded storage": {"watch": {"resources": {"limits": {"ephemeral-storage": None}}}},
    "a runner without pods": {"profiles": {"cpu": {"runner": "local"}}},
    "the name of the built-in profile": {"profiles": {"local": {}}},
    "another Kueue": {"kueue": {"apiVersion": "kueue.x-k8s.io/v1alpha1"}},
    "a moving image of Airflow": {"airflow": {"images": {"airflow": {"tag": "latest"}}}},
    "another Pod Security version": {"namespace": {"version": "newest"}},
    "a secret in the environment": {"pods": {"environment": {"PROXY_PASSWORD": "x"}}},
    "a variable of ours": {"pods": {"environment": {"RETAIN_JUDGE_KEY": "x"}}},
    "a label of ours": {"pods": {"labels": {"retain.dev/role": "trusted"}}},
    "authorities without a name": {"pods": {"authorities": {"key": "ca.crt"}}},
    "a negative amount": {"quota": {"hard": {"pods": -1}}},
    "an amount of nothing": {"quota": {"hard": {"pods": "Gi"}}},
}


def test_a_line_may_not_be_called_like_a_dag_of_all_lines() -> None:
    assert SCHEMA["definitions"]["line"]["properties"]["name"]["not"]["enum"] == list(TAKEN)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_refused(name: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(WRONG[name])


WRONG_LINES = {
    "a password in a URL": {"workspace": "https://me:hunter2@git.example/my-line.git"},
    "a folder": {"workspace": "/srv/lines/my-line"},
    "a query": {"store": "s3://bucket/my-line?key=value"},
    "no store": {"store": ""},
    "an upper-case name": {"name": "My-Line"},
    "a schedule of words": {"schedule": "every night"},
    "a minute that no hour has": {"schedule": "99 2 * * *"},
    "an hour that no day has": {"schedule": "0 25 * * *"},
    "a weekday for a month": {"schedule": "0 2 * MON *"},
    "a day that is none": {"schedule": "0 2 0 * *"},
    "a day that its month does not have": {"schedule": "0 2 31 2 *"},
    "no trusted secret": {"secrets": {"step": "a"}},
    "variables of a worker for a pod": {"environment": ["HTTPS_PROXY"]},
    "a secret of a notifier": {"notify": [{"notifier": "a.B", "arguments": {"slack_token": "x"}}]},
    "a negative jitter": {"jitter_minutes": -1},
    "the name of a DAG of all lines": {"name": "audit"},
}


@pytest.mark.parametrize("name", WRONG_LINES)
def test_a_wrong_line_is_refused(name: str) -> None:
    values = case("minimal")
    check(values)
    values["lines"] = [{**values["lines"][0], **WRONG_LINES[name]}]
    with pytest.raises(jsonschema.ValidationError):
        check(values)


def test_the_chart_refuses_the_days_that_never_come_and_no_other() -> None:
    """Its patterns cannot count days; every pair of late days and of months is asked of croniter as well."""
    days, months = (
        ("1", "28", "29", "30", "31", "29-31", "30-31", "30/2", "31/5"),
        ("*", *map(str, range(1, 13)), "Feb"),
    )
    cron = jsonschema.Draft7Validator({**SCHEMA["definitions"]["cron"], "definitions": SCHEMA["definitions"]})
    pairs = [",".join(dict.fromkeys(pair)) for pair in combinations_with_replacement(days, 2)]
    for day, month, weekday in product(
        pairs, (",".join(pair) for pair in combinations_with_replacement(months, 2)), ("*", "1")
    ):
        schedule = f"0 2 {day} {month} {weekday}"
        assert cron.is_valid(schedule) == comes(schedule), schedule


def comes(schedule: str) -> bool:
    """Whether Airflow's own reading of a schedule finds a next time."""
    try:
        schedules.check(schedule)
    except ValueError:
        return False
    return True


def test_patterns_are_ones_that_go_knows() -> None:
    """Helm compiles the schema with Go's regular expressions, which look neither ahead nor back."""
    text = (CHART / "values.schema.json").read_text(encoding="utf-8")
    assert "(?" not in text


AMOUNTS = (4, 0.5, "4", ".5", "1Ei", "1e10", 1e10, "100m", "10M", "+1")


@pytest.mark.parametrize("amount", AMOUNTS)
def test_every_amount_that_kubernetes_takes_is_taken(amount: object) -> None:
    check({"quota": {"hard": {"pods": amount}}, "profiles": {"cpu": {"cpu_step": {"cpu": amount}}}})


def test_limits_may_leave_the_processor_open() -> None:
    limits = {"cpu": None, "memory": "1Gi", "ephemeral-storage": "1Gi"}
    check({"watch": {"resources": {"limits": limits}}})


def test_global_is_a_parent_charts() -> None:
    check({"global": {"clusterName": "x", "imageRegistry": "registry.example"}})
