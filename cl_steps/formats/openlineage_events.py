"""What a step read, wrote and found, as OpenLineage events.

The namespace is the line's name, of jobs and of datasets; a job is a step, and `night` the job of a whole run, the
parent of its steps. Datasets are paths of a workspace, each in the version that is DVC's digest of it; `model` is what
`promote` makes. Verdicts are assertions about what was judged. No caption, reason or person is in any of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import attr
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    OutputDatasetFacet,
    RunFacet,
    data_quality_assertions_dataset,
    dataset_version_dataset,
    error_message_run,
    job_type_job,
    output_statistics_output_dataset,
    parent_run,
    processing_engine_run,
)
from openlineage.client.generated.data_quality_assertions_dataset import Assertion

from cl_steps.config import load_params, load_run
from cl_steps.documents import Json
from cl_steps.formats.bom import NAMESPACE
from cl_steps.formats.facts import record_digest
from cl_steps.pipeline import CLOSE, INGEST, PROMOTE, STAGES, STATE, Step, next_state, of_run
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Mainline, reading
from cl_steps.repository.run_branch import RunState as Branch
from cl_steps.repository.run_branch import checked_out, run_state
from cl_steps.store.digests import file_md5
from cl_steps.store.pointers import lock_outs, read_dvc_file
from cl_steps.verify.consistency import next_digests
from cl_steps.version import version

NIGHT, MODEL = "night", "model"
PRODUCER = f"urn:retain:{version()}"
GATE_INPUT, DRIFT_INPUT = "tonight/evaluation/figures", "tonight/batch"
Out = Json


@attr.define
class VersionFacet(RunFacet):
    """Which version a run made; its schema is `version_facet.json` beside this file."""

    version: str
    parent: str
    recordSha256: str  # noqa: N815  (OpenLineage's way of writing)
    adapterMd5: str  # noqa: N815

    @staticmethod
    def _get_schema() -> str:
        return "urn:retain:openlineage:1-0-0:version_facet.json#/$defs/VersionFacet"


@dataclass(frozen=True)
class Seen:
    """What branch and main say of a step: the line's name, datasets by path, its report, and what became of the run."""

    line: str
    inputs: Mapping[str, Out]
    outputs: Mapping[str, Out]
    report: Json = field(default_factory=dict)
    version: VersionFacet | None = None
    outcome: str = ""


def events_of(
    line: Line, run: str, step: Step, kind: str, times: tuple[str, str], error: str = ""
) -> Iterator[RunEvent]:
    """The events of one moment of a step: its own, and that of the night where it begins or ends.

    Args:
        kind: START, COMPLETE, FAIL or ABORT.
        times: when this try of the step began, which tells it from others, and the moment (ISO 8601).
        error: the kind of what went wrong.

    Raises:
        RetainError: a remote cannot be read.
    """
    began, moment = times
    seen = _look(line, run, step, done=kind == "COMPLETE")
    night = _derived(seen.line, run)
    if step == INGEST and kind == "START":
        yield _of_night(seen.line, night, moment, kind)
    yield RunEvent(
        eventTime=moment,
        eventType=RunState[kind],
        run=Run(_derived(seen.line, run, step.name, began), _facets(seen, night, error)),
        job=Job(seen.line, step.name, _job("TASK")),
        inputs=[_input(seen, step, path, out) for path, out in seen.inputs.items()],
        outputs=[_output(seen, path, out) for path, out in seen.outputs.items()],
        producer=PRODUCER,
    )
    if step == CLOSE and kind == "COMPLETE":
        yield _of_night(seen.line, night, moment, "FAIL" if seen.outcome == "failed" else "COMPLETE")


def _of_night(line: str, night: str, moment: str, kind: str) -> RunEvent:
    run, job = Run(night, {"processing_engine": _engine()}), Job(line, NIGHT, _job("DAG"))
    return RunEvent(eventTime=moment, eventType=RunState[kind], run=run, job=job, producer=PRODUCER)


def _derived(*parts: str) -> str:
    return str(uuid.uuid5(NAMESPACE, "\0".join(parts)))


def _facets(seen: Seen, night: str, error: str) -> dict[str, RunFacet]:
    whole = parent_run.Run(night), parent_run.Job(seen.line, NIGHT)
    found: dict[str, RunFacet] = {
        "parent": parent_run.ParentRunFacet(*whole, producer=PRODUCER),
        "processing_engine": _engine(),
    }
    if error:
        found["errorMessage"] = error_message_run.ErrorMessageRunFacet(error, "python", producer=PRODUCER)
    return found | ({"retain_version": seen.version} if seen.version else {})


def _engine() -> RunFacet:
    return processing_engine_run.ProcessingEngineRunFacet(version(), "retain", producer=PRODUCER)


def _job(kind: str) -> dict[str, Any]:
    return {"jobType": job_type_job.JobTypeJobFacet("BATCH", "RETAIN", kind, producer=PRODUCER)}


def _input(seen: Seen, step: Step, path: str, out: Out) -> InputDataset:
    assertions = list(_assertions(step.name, seen.report)) if path in (GATE_INPUT, DRIFT_INPUT) else []
    facet = data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet(assertions, producer=PRODUCER)
    return InputDataset(
        seen.line, path, {"dataQualityAssertions": facet} if assertions else {}, facets=_version_facet(out)
    )


def _output(seen: Seen, path: str, out: Out) -> OutputDataset:
    facets: dict[str, OutputDatasetFacet] = {}
    if "size" in out:
        facets["outputStatistics"] = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
            size=out["size"], fileCount=out.get("nfiles", 1), producer=PRODUCER
        )
    return OutputDataset(seen.line, path, facets, facets=_version_facet(out))


def _version_facet(out: Out) -> dict[str, Any]:
    if not out.get("md5"):
        return {}
    return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(str(out["md5"]), producer=PRODUCER)}


def _assertions(step: str, report: Json) -> Iterator[Assertion]:
    """The verdict of gate or drift and what it rests on."""
    figures, verdict = report.get("figures") or {}, report.get("verdict")
    if verdict is None:
        return
    if step == "gate":
        yield Assertion("gate", verdict == "promote", severity="error", name="gate", actual=verdict)
        yield from (_check(check) for check in figures.get("checks", ()))
    elif step == "drift":
        yield Assertion("drift", verdict != "alarming", severity="error", name="drift", actual=verdict)
        for name, found in sorted(figures.get("slices", {}).items()):
            actual = f"AUC {found.get('auc')}, p {found.get('p_value')}"
            yield Assertion("no drift", not found.get("drifted"), severity="warn", name=f"drift/{name}", actual=actual)


def _check(check: Json) -> Assertion:
    gain = check.get("kind") == "superiority"
    return Assertion(
        str(check.get("kind")),
        check.get("verdict") == "pass",
        severity="error",
        name=f"{check.get('slice')}/{check.get('metric')}/{check.get('against')}",
        expected=f"{'gain >=' if gain else 'harm <='} {check.get('margin')}",
        actual=str(check.get("estimate")),
    )


def _look(line: Line, run: str, step: Step, *, done: bool) -> Seen:
    if step in STAGES:
        return _look_at_stage(line, run, step, done)
    with reading(line.git) as main:
        return _look_at_main(line, run, step, main, done)


def _look_at_stage(line: Line, run: str, step: Step, done: bool) -> Seen:
    """Versions are those of the stage's entry in the lock once it is done; before, what is known of what it reads."""
    with checked_out(line, run) as root:
        state, known = run_state(root), _known(root)
        step = of_run(step, bool(state.spec.rebase))
        entry = state.lock.get(step.name, {}) if done else {}
        known |= {dep["path"]: dep for dep in entry.get("deps", ())}
        known |= {"landing": _landing(state)} if done else {}
        made = {out["path"]: out for out in entry.get("outs", ())}
        report = root / step.report
        made[step.report] = {"md5": file_md5(report)} if done and report.is_file() else {}
        inputs = {path: known.get(path, {}) for path in step.reads}
        outputs = {path: made.get(path, {}) for path in (*step.writes, step.report)}
        told = state.reports.get(step.name) if done else None
        return Seen(_name(root), inputs, outputs, told.document() if told else {})


def _look_at_main(line: Line, run: str, step: Step, main: Mainline, done: bool) -> Seen:
    with checked_out(line, run) as root:
        name, state = _name(root), run_state(root)
    outs, parts = lock_outs(state.lock), next_state(bool(state.spec.rebase))
    event = main.ledger().runs.get(run) if done else None
    if step != PROMOTE:
        kept = f"data/{run}"
        content = main.read(f"{kept}.dvc") if done else None
        outputs = {kept: read_dvc_file(content)} if content else {}
        return Seen(name, _only(outs, ["tonight/intake"]), outputs, outcome=event.outcome if event else "")
    inputs = _only(outs, parts.values())
    if event is None or not event.version:
        return Seen(name, inputs, {f"state/{part}": {} for part in parts} | {MODEL: {}})
    record, digest = record_digest(main, event.version)
    made = next_digests(record)
    outputs = {f"state/{part}": {**outs.get(path, {}), "md5": made[part]} for part, path in parts.items()}
    facet = VersionFacet(record.version, str(record.parent), digest, made["adapter"], producer=PRODUCER)
    return Seen(name, inputs, outputs | {MODEL: {"md5": record.version}}, version=facet)


def _only(outs: Mapping[str, Out], paths: Iterable[str]) -> dict[str, Out]:
    return {path: outs.get(path, {}) for path in paths}


def _known(root: Path) -> dict[str, Out]:
    """What the branch says of data that a stage reads: its state, and what the stages before it made."""
    tracked = {f"state/{name}": root / f"state/{name}.dvc" for name in STATE}
    state = {path: read_dvc_file(file.read_bytes()) for path, file in tracked.items() if file.is_file()}
    return state | lock_outs(run_state(root).lock)


def _landing(state: Branch) -> Out:
    """Which landing it was: what ingest says of the map of its files, since DVC sees no landing."""
    told = state.figures(INGEST.name).get("landing")
    return {"md5": str(told.get("digest", ""))[:128]} if isinstance(told, dict) else {}


def _name(root: Path) -> str:
    return load_params(root, load_run(root)).name
