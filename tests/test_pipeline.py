"""One definition of the pipeline: `pipeline.py`, `dvc.yaml`, `params.yaml` and the command line say the same."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cl_steps.config import Params
from cl_steps.pipeline import NEXT_STATE, STAGES, STATE, STEPS, Said, next_step, outcome, stop_reason

ROOT = Path(__file__).parents[1]
DVC: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def names(entries: list[Any]) -> set[str]:
    return {entry if isinstance(entry, str) else next(iter(entry)) for entry in entries}


def test_dvc_has_exactly_the_stages_in_their_order() -> None:
    assert list(DVC) == [step.name for step in STAGES]


@pytest.mark.parametrize("step", STAGES, ids=lambda step: step.name)
def test_dvc_reads_and_writes_what_the_step_does(step: Any) -> None:
    stage = DVC[step.name]
    assert stage["cmd"] == f"retain step {step.name}"
    assert stage["desc"] == step.summary
    # What strangers named is never DVC's to read: a step that looks into the landing is run each time instead.
    assert set(stage["deps"]) == set(step.reads) - {"landing"}
    assert stage.get("always_changed", False) == ("landing" in step.reads)
    assert names(stage["outs"]) == set(step.writes)
    assert names(stage["metrics"]) == {step.report}
    assert names(stage["params"]) == {*step.params, "run.yaml"}


def test_every_step_reads_only_what_is_there_by_then() -> None:
    there = {"landing", "events", "checks", "state/champion.json", *(f"state/{name}" for name in STATE)}
    for step in STAGES:
        assert set(step.reads) <= there, step.name
        there |= {*step.writes, step.report}


def test_the_next_state_is_made_by_the_stages() -> None:
    written = {name for step in STAGES for name in step.writes}
    assert set(NEXT_STATE.values()) <= written
    assert set(NEXT_STATE) <= set(STATE)


@pytest.mark.parametrize("name", STEPS)
def test_the_code_of_every_step_is_where_the_definition_says(name: str) -> None:
    module, _, function = STEPS[name].function.partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_params_yaml_is_complete_and_holds_the_defaults() -> None:
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert Params.model_validate_json(Params().model_dump_json()).model_dump(mode="json") == shipped


def done(verdict: str | None) -> Said:
    return Said("done", verdict)


@pytest.mark.parametrize(
    ("verdicts", "step", "ended"),
    [
        ({}, "ingest", "failed"),
        ({"ingest": "ok"}, "drift", "failed"),
        ({"ingest": "too_few"}, "close", "no_update"),
        ({"ingest": "ok", "drift": "quiet"}, "close", "no_update"),
        ({"ingest": "ok", "drift": "alarming"}, "close", "held"),
        ({"ingest": "ok", "drift": "drifted"}, "update", "failed"),
        ({"ingest": "ok", "drift": "drifted", "update": None, "evaluate": None}, "gate", "failed"),
        ({"ingest": "ok", "drift": "drifted", "update": None, "evaluate": None, "gate": "reject"}, "close", "rejected"),
        (
            {"ingest": "ok", "drift": "drifted", "update": None, "evaluate": None, "gate": "inconclusive"},
            "close",
            "held",
        ),
        (
            {"ingest": "ok", "drift": "drifted", "update": None, "evaluate": None, "gate": "promote"},
            "promote",
            "failed",
        ),
    ],
)
def test_what_follows_and_how_it_ends(verdicts: dict[str, str | None], step: str, ended: str) -> None:
    reports = {name: done(verdict) for name, verdict in verdicts.items()}
    assert next_step(reports) == step
    assert outcome(reports, promoted=False) == ended
    assert bool(stop_reason(reports)) == (step == "close" and "gate" not in verdicts)


def test_a_promotion_that_waits_for_approval_is_held() -> None:
    reports = {step.name: done(None) for step in STAGES}
    reports["gate"] = replace(done("promote"), figures={"approval": True})
    assert next_step(reports) == "close"
    assert outcome(reports, promoted=False) == "held"
