"""A line that OpenLineage hears of, and the shape that its events must have."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openlineage.client import event_v2, facet_v2

import cl_steps.steps.promote
from cl_steps.formats import openlineage
from cl_steps.operations import play as steps
from cl_steps.pipeline import STAGES, Step
from cl_steps.repository.line import Line
from cl_steps.run.context import Context, StepReport
from tests.lines.small import GOOD, fake_stage, make_workspace

HOSTILE = "<script>secret</script> password=hunter2"
CHECK = {
    "slice": "old",
    "metric": "loss",
    "against": "champion",
    "kind": "non-inferiority",
    "units": 9,
    "estimate": 0.01,
    "lower": 0.0,
    "upper": 0.02,
    "margin": 0.05,
    "verdict": "pass",
    "note": HOSTILE,
}
FIGURES: Mapping[str, Mapping[str, Any]] = {
    "drift": {"slices": {"old": {"auc": 0.7, "p_value": 0.001, "drifted": True}}, "forced": HOSTILE},
    "gate": {"checks": [CHECK]},
}


def quiet_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A line whose stages write a few bytes, and nobody who wants to hear of them."""
    for name in list(os.environ):
        if name.startswith("OPENLINEAGE") or name == openlineage.OFFLINE:
            monkeypatch.delenv(name)
    monkeypatch.setattr(cl_steps.steps.promote, "_check_figures", lambda *_: None)
    monkeypatch.setattr(steps, "load", loaded(dict(GOOD)))
    return make_workspace(tmp_path / "line")


def loaded(verdicts: Mapping[str, str | None], real: Callable[[Step], Any] = steps.load) -> Callable[[Step], Any]:
    """Loads stages that give those verdicts, with figures and hostile words, and the other steps as they are."""

    def load(chosen: Step) -> Any:
        if chosen not in STAGES:
            return real(chosen)

        def function(context: Context) -> StepReport:
            found = fake_stage(chosen, verdicts[chosen.name])(context)
            figures = {**found.figures, **FIGURES.get(chosen.name, {})}
            return StepReport(found.verdict, f"{found.why}: {HOSTILE}", figures)

        return function

    return load


def told_to(path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Have events written into a file; returns what reads them."""
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "file")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__LOG_FILE_PATH", str(path))
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__APPEND", "true")
    return lambda: [json.loads(row) for row in path.read_text().splitlines()] if path.exists() else []


def conform(event: dict[str, Any]) -> None:
    """The event is what the client's own classes, which are made from the specification, can hold."""
    named = {facet.__name__: facet for module in vars(facet_v2).values() for facet in _classes(module)}

    def facets(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
        made = {}
        for key, values in found.items():
            name = values["_schemaURL"].rpartition("/")[2]
            # The client itself adds its version as a tag.
            assert key == "tags" or values["_producer"].startswith("urn:retain:")
            plain = {k: v for k, v in values.items() if not k.startswith("_")}
            if name == "VersionFacet":
                schema = Path(openlineage.__file__).with_name("version_facet.json")
                jsonschema.validate({key: values}, json.loads(schema.read_text()))
            else:
                made[key] = named[name](**plain)
                assert made[key]._get_schema() == values["_schemaURL"]
        return made

    run, job = event["run"], event["job"]
    dataset = {"inputs": (event_v2.InputDataset, "inputFacets"), "outputs": (event_v2.OutputDataset, "outputFacets")}
    sides = {
        side: [
            kind(**{**found, "facets": facets(found.get("facets", {})), own: facets(found.get(own, {}))})
            for found in event.get(side, ())
        ]
        for side, (kind, own) in dataset.items()
    }
    made = event_v2.RunEvent(
        eventTime=event["eventTime"],
        producer=event["producer"],
        eventType=event_v2.RunState(event["eventType"]),
        run=event_v2.Run(run["runId"], facets(run["facets"])),
        job=event_v2.Job(job["namespace"], job["name"], facets(job["facets"])),
        **sides,
    )
    assert made.schemaURL == event["schemaURL"]


def _classes(module: object) -> list[type]:
    return [found for found in vars(module).values() if isinstance(found, type)] if hasattr(module, "__file__") else []


def of(events: list[dict[str, Any]], job: str) -> list[dict[str, Any]]:
    """The events of a job."""
    return [event for event in events if event["job"]["name"] == job]
