"""The chart as `helm template` would render it: values merged and checked, templates rendered, manifests read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from gotpl.exts.helm import HelmTemplateEngine

CHART = Path(__file__).parents[2] / "helm"
CASES = tuple(sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml")))
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
RELEASE = {
    "Name": "night",
    "Namespace": "retain",
    "Service": "Helm",
    "IsInstall": True,
    "IsUpgrade": False,
    "Revision": 1,
}
POD = {
    "Pod": ("spec",),
    "Job": ("spec", "template", "spec"),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
}

Values = dict[str, Any]


def defaults() -> Values:
    """The chart's own values."""
    return read(CHART / "values.yaml")


def case(name: str) -> Values:
    """The values of a case in ci/, without the defaults."""
    return read(CHART / "ci" / f"{name}-values.yaml")


def read(path: Path) -> Values:
    """A YAML file that holds one mapping."""
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def merged(base: Values, over: Values) -> Values:
    """As Helm does: mappings are merged, null removes, all else is replaced."""
    found = dict(base)
    for key, value in over.items():
        if value is None and key in found:
            del found[key]
        elif isinstance(value, dict) and isinstance(found.get(key), dict):
            found[key] = merged(found[key], value)
        else:
            found[key] = value
    return found


def check(values: Values) -> None:
    """Raise jsonschema's ValidationError where the chart refuses these values (defaults included)."""
    jsonschema.Draft7Validator(SCHEMA).validate(merged(defaults(), values))


def render(values: Values) -> dict[str, str]:
    """Every template by its name under templates/, rendered; raises gotpl's error where a check of the chart fails."""
    check(values)
    about = read(CHART / "Chart.yaml")
    chart = {key[0].upper() + key[1:]: value for key, value in about.items()}
    context = {"Values": merged(defaults(), values), "Release": RELEASE, "Chart": chart}
    engine = _engine()
    names = [name for name in _sources() if not name.endswith("_helpers.tpl")]
    return {name: engine.render({name: json.loads(json.dumps(context))})[name] for name in names}


def manifests(values: Values) -> list[dict[str, Any]]:
    """Every object of the release, tests included."""
    rendered = (text for name, text in render(values).items() if name.endswith(".yaml"))
    return [found for text in rendered for found in yaml.safe_load_all(text) if found]


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The spec of every pod that the release starts, with the name of what starts it."""
    for found in objects:
        if found["kind"] in POD:
            spec = found
            for key in POD[found["kind"]]:
                spec = spec[key]
            yield found["metadata"]["name"], spec


def named(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind, by name."""
    return {found["metadata"]["name"]: found for found in objects if found["kind"] == kind}


@cache
def _sources() -> dict[str, str]:
    folder = CHART / "templates"
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.*"))}


@cache
def _engine() -> HelmTemplateEngine:
    return HelmTemplateEngine.from_sources(_sources())
