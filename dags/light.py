"""The light tasks of a line: open a run, decide how it goes on, say how it ended. They only read and write Git.

The rule for going on is `pipeline.next_step`, asked here and not repeated: the DAG's edges come from it too.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from cl_steps.config import RUN_ID, RunSpec, Update
from cl_steps.errors import UsageError
from cl_steps.pipeline import STAGES, Step, next_step
from cl_steps.workspace.branch import open_run, read_run, run_id
from cl_steps.workspace.mainline import reading
from dags.registry import Entry
from dags.runners import Child, environment, settled

LOG = logging.getLogger("retain.run")
TRIGGERS: dict[str, Literal["schedule", "asset"]] = {"scheduled": "schedule", "asset_triggered": "asset"}
METHODS = get_args(Update.model_fields["method"].annotation)
VERDICTS = (None, "ok", "too_few", "quiet", "drifted", "alarming", "promote", "reject", "inconclusive")
"""Every word that a report may give: where two of them lead to different steps, the DAG needs a decision."""


def form() -> dict[str, Param]:
    """What ops may set when they trigger a run by hand."""
    return {
        "force": Param(
            False, type="boolean", title="Learn although drift is quiet",
            description="Goes on to the update whatever drift says of the batch; the gate decides as always.",
        ),
        "method": Param(
            None, type=["null", "string"], enum=[None, *METHODS], title="Method, for this run alone",
            description="How the candidate learns. Empty: as params.yaml says.",
        ),
        "batch": Param(
            None, type=["null", "string"], pattern=f"^({RUN_ID.pattern})$", title="Learn the batch of this run",
            description="A run's id, as `retain runs` lists it: its stored batch is learnt, the landing is not read.",
        ),
        "set": Param(
            {}, type="object", title="Parameters, for this run alone",
            description='Dotted names of params.yaml and values, for example {"update.steps": 500}.',
        ),
        "reason": Param(
            "", type="string", maxLength=500, title="Why",
            description="Recorded with the run. Needed with everything above.",
        ),
    }  # fmt: skip


def identity(dag_run: Any, timezone: str) -> str:
    """The id of the run that a DAG run is: retries and clears find the same branch."""
    moment: datetime = dag_run.logical_date or dag_run.run_after
    return run_id(f"{moment.astimezone(ZoneInfo(timezone)):%Y-%m-%d}", dag_run.dag_id, dag_run.run_id)


def spec_of(dag_run: Any, params: Mapping[str, Any], run: str) -> RunSpec:
    """What is special about a run, from the form; raises UsageError for a wish without its reason."""
    wishes = [name for name in ("force", "method", "batch", "set") if params[name]]
    reason = params["reason"].strip()
    if wishes and not reason:
        raise UsageError(f"a run with {', '.join(wishes)} needs a reason: trigger it again and write one")
    if params["method"] and "update.method" in params["set"]:
        raise UsageError("the form has a method and sets update.method too: trigger it again with one of them")
    overrides = {**params["set"], **({"update.method": params["method"]} if params["method"] else {})}
    return RunSpec(
        id=run,
        trigger=TRIGGERS.get(str(dag_run.run_type.value), "manual"),
        by=dag_run.triggering_user_name or "",
        reason=reason,
        batch=params["batch"],
        force=params["force"],
        set=overrides,
    )


@settled()
def open_it(entry: Entry, run: str, dag_run: Any, params: Mapping[str, Any]) -> None:
    """Make the run's branch, or find it."""
    spec = open_run(entry.line(), spec_of(dag_run, params, run))
    LOG.info("run %s of line %s: branch runs/%s on %s", run, entry.name, run, spec.base[:10])


def successors(step: Step) -> tuple[str, ...]:
    """The steps that may follow a stage: what the pipeline's own rule says for every verdict."""
    before = {stage.name: {"status": "done", "verdict": None} for stage in STAGES[: STAGES.index(step)]}
    found = (next_step({**before, step.name: {"status": "done", "verdict": word}}) for word in VERDICTS)
    return tuple(dict.fromkeys(found))


@settled()
def decide(entry: Entry, step: Step, run: str) -> str:
    """The step that follows a stage of this run, by its reports up to there."""
    reports = read_run(entry.line(), run).reports
    known = {stage.name: reports[stage.name] for stage in STAGES[: STAGES.index(step) + 1] if stage.name in reports}
    chosen = next_step(known)
    if chosen == step.name or step.name not in known:
        raise AirflowException(f"run {run} has no report of {step.name}: clear the task {step.name}")
    LOG.info("%s: %s. %s -> %s", step.name, known[step.name]["verdict"], known[step.name]["why"], chosen)
    return chosen


@settled()
def report(entry: Entry, run: str) -> dict[str, Any]:
    """How the run ended, as main has it; beside it the line's page, where the workspace is a folder here.

    Raises:
        AirflowFailException: the run failed, or left nothing on main.
    """
    with reading(entry.line().git) as main:
        event = main.ledger().runs.get(run)
    if not event:
        raise AirflowFailException(f"main knows nothing of run {run}: clear the task close")
    found = {key: event[key] for key in ("run", "outcome", "why", "version", "drift", "gate", "seconds")}
    LOG.info("run %s ended: %s %s. %s", run, event["outcome"], event["version"] or "", event["why"])
    _write_page(entry)
    if event["outcome"] == "failed":
        raise AirflowFailException(f"run {run} failed: {event['why']}")
    return found


def _write_page(entry: Entry) -> None:
    """The page is derived from what is stored: without it the run is none the worse."""
    if entry.page and Path(entry.workspace).is_dir():
        env = environment(os.environ, entry.environment, entry.settings)
        code, last = Child(("report", entry.workspace), env).run()
        if code:
            LOG.warning("the page was not written: %s", last)
