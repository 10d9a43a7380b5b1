"""A line in MLflow's registry: the model is the line, each version a run with its figures and papers, and a version.

MLflow counts its own versions; the tag `retain.version` says which of ours one is. What is there already stays: a
mirror that was killed is gone on with, and the alias `champion` points at what the line uses today.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cl_steps.formats.facts import Facts
from cl_steps.formats.mlflow import (
    LONGEST_VALUE,
    METRICS_AT_ONCE,
    PARAMETERS_AT_ONCE,
    SCHEME,
    Json,
    Missing,
    Server,
)

VERSION_TAG, ALIAS = "retain.version", "champion"
MODEL_FOLDER = "retain"
"""Where in a run's artifacts the papers of its version are."""


@dataclass(frozen=True)
class Registry:
    """The registered model of one line, and the experiment that its versions' runs are in."""

    server: Server
    line: str
    experiment: str

    @classmethod
    def of(cls, server: Server, line: str) -> Registry:
        """Find them, or make them; raises as `Server` does."""
        try:
            found = server.get("experiments/get-by-name", experiment_name=line)["experiment"]["experiment_id"]
        except Missing:
            found = server.post("experiments/create", {"name": line})["experiment_id"]
        try:
            server.get("registered-models/get", name=line)
        except Missing:
            server.post("registered-models/create", {"name": line, "description": "A line that Retain keeps."})
        return cls(server, line, str(found))

    def versions(self) -> dict[str, str]:
        """MLflow's number of each of our versions that is there."""
        query = {"filter": f"name='{self.line}'", "max_results": 1000}
        found = self.server.pages("model-versions/search", "model_versions", query)
        told = ((_tags(version).get(VERSION_TAG), str(version["version"])) for version in found)
        return {version: number for version, number in told if version}

    def add(self, facts: Facts, papers: Mapping[str, bytes], signature: str) -> Json:
        """Write a version: its run, its papers, and last its entry in the registry.

        Returns:
            MLflow's number of it, its run, and whether the papers are there: a server that does not serve artifacts
            itself takes none.
        """
        run = self._run(facts.version) or self._begin(facts)
        identity, place = run["info"]["run_id"], str(run["info"]["artifact_uri"])
        self._log(identity, facts, signature)
        served = place.startswith(SCHEME)
        for name, content in papers.items() if served else ():
            self.server.upload(place, f"{MODEL_FOLDER}/{name}", content)
        ended = {"run_id": identity, "status": "FINISHED", "end_time": _milliseconds(facts)}
        self.server.post("runs/update", ended)
        version = {
            "name": self.line,
            "source": f"{place}/{MODEL_FOLDER}",
            "run_id": identity,
            "tags": _pairs(tags(facts, signature)),
        }
        number = self.server.post("model-versions/create", version)["model_version"]["version"]
        return {"mlflow": str(number), "run": identity, "artifacts": served}

    def point(self, number: str) -> None:
        """Have the alias name this version of MLflow's."""
        self.server.post("registered-models/alias", {"name": self.line, "alias": ALIAS, "version": number})

    def _run(self, version: str) -> Json | None:
        """The run of a version that an earlier mirror began."""
        query = {"experiment_ids": [self.experiment], "filter": f"tags.`{VERSION_TAG}` = '{version}'", "max_results": 1}
        return next(self.server.pages("runs/search", "runs", query, post=True), None)

    def _begin(self, facts: Facts) -> Json:
        body = {
            "experiment_id": self.experiment,
            "run_name": facts.version,
            "start_time": _milliseconds(facts) - round(1000 * (facts.record.seconds or 0)),
            "tags": _pairs({VERSION_TAG: facts.version}),
        }
        return dict(self.server.post("runs/create", body)["run"])

    def _log(self, run: str, facts: Facts, signature: str) -> None:
        for some in _in_parts(_pairs(dict(parameters(facts))), PARAMETERS_AT_ONCE):
            self.server.post("runs/log-batch", {"run_id": run, "params": some})
        at = _milliseconds(facts)
        measured = [{"key": key, "value": value, "timestamp": at, "step": 0} for key, value in metrics(facts)]
        for some in _in_parts(measured, METRICS_AT_ONCE):
            self.server.post("runs/log-batch", {"run_id": run, "metrics": some})
        self.server.post("runs/log-batch", {"run_id": run, "tags": _pairs(tags(facts, signature))})


def tags(facts: Facts, signature: str) -> dict[str, str]:
    """What says where a version came from."""
    found = {
        VERSION_TAG: facts.version,
        "retain.run": facts.record.run,
        "retain.parent": facts.record.parent,
        "retain.record_sha256": facts.record_sha256,
        "retain.adapter_sha256": facts.adapter_sha256,
        "retain.adapter_md5": facts.digest("adapter"),
        "retain.batch": facts.digest("batch"),
        "retain.code_sha256": facts.record.code,
        "retain.gate": facts.record.verdict("gate"),
        "retain.signature": signature,
    }
    return {key: str(value) for key, value in found.items() if value}


def metrics(facts: Facts) -> Iterator[tuple[str, float]]:
    """`slice/metric` of every slice, and what the version cost."""
    for name, values in sorted(facts.record.slices.items()):
        for metric, value in sorted(values.items()):
            if value is not None and math.isfinite(value):
                yield f"{name}/{metric}", float(value)
    for key, value in (("seconds", facts.record.seconds), ("gpu_seconds", facts.record.gpu_seconds)):
        if value is not None:
            yield key, float(value)


def parameters(facts: Facts) -> Iterator[tuple[str, str]]:
    """Every knob by its dotted name, as it was for this run."""
    found = facts.record.parameters
    flat = dict(_flat(found.file)) | {key: str(value) for key, value in found.set.items()}
    yield from sorted(flat.items())


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", str(value)


def _in_parts(values: list[Json], size: int) -> Iterator[list[Json]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _pairs(values: Mapping[str, str]) -> list[Json]:
    return [{"key": key, "value": value[:LONGEST_VALUE]} for key, value in values.items()]


def _tags(found: Json) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in found.get("tags", ())}


def _milliseconds(facts: Facts) -> int:
    return round(datetime.fromisoformat(facts.record.created).timestamp() * 1000)
