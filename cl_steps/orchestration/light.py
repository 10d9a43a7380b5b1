"""The light tasks of a line: open a run, decide how it goes on, say how it ended. They only read and write Git.

The rule for going on is `pipeline.next_step`, asked here and not repeated: the DAG's edges come from it too.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from airflow.sdk import Asset, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from cl_steps.config import PRESETS, RUN_ID, RunSpec, validate_block
from cl_steps.documents import Json
from cl_steps.errors import UsageError
from cl_steps.ledger.events import RunEvent
from cl_steps.ledger.fold import Ledger
from cl_steps.ledger.record import Record
from cl_steps.orchestration.registry import Entry
from cl_steps.orchestration.settling import settled
from cl_steps.orchestration.telling import measure, tell
from cl_steps.pipeline import STAGES, Said, Step, next_step
from cl_steps.repository.mainline import reading
from cl_steps.repository.run_branch import open_run, read_run, run_id

BUDGET_DAYS = 30
LOG = logging.getLogger("retain.run")
TRIGGERS: dict[str, Literal["schedule", "asset"]] = {"scheduled": "schedule", "asset_triggered": "asset"}
STAGE_NAMES_ON_GPU = tuple(step.name for step in STAGES if step.device == "gpu")


def form() -> dict[str, Param]:
    """What ops may set when they trigger a run by hand."""
    return {
        "force": Param(
            False, type="boolean", title="Learn although drift is quiet",
            description="Goes on to the update whatever drift says of the batch; the gate decides as always.",
        ),
        "method": Param(
            None, type=["null", "string"], enum=[None, *PRESETS], title="Method, for this run alone",
            values_display={"null": "as params.yaml says"},
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
            None, type=["null", "string"], maxLength=500, title="Why",
            description="Recorded with the run. Needed with everything above.",
        ),
    }  # fmt: skip


def identity(dag_run: Any, timezone: str) -> str:
    """The id of the run that a DAG run is: retries and clears find the same branch."""
    moment: datetime = dag_run.logical_date or dag_run.run_after
    return run_id(f"{moment.astimezone(ZoneInfo(timezone)):%Y-%m-%d}", dag_run.dag_id, dag_run.run_id)


def spec_of(dag_run: Any, params: Json, run: str) -> RunSpec:
    """What is special about a run, from the form; raises UsageError for a wish without its reason."""
    wishes = [name for name in ("force", "method", "batch", "set") if params[name]]
    reason = (params["reason"] or "").strip()
    if wishes and not reason:
        raise UsageError(f"a run with {', '.join(wishes)} needs a reason: trigger it again and write one")
    if params["method"] and "update.method" in params["set"]:
        raise UsageError("the form has a method and sets update.method too: trigger it again with one of them")
    overrides = {**params["set"], **({"update.method": params["method"]} if params["method"] else {})}
    facts = {
        "id": run,
        "trigger": TRIGGERS.get(str(dag_run.run_type.value), "manual"),
        "by": dag_run.triggering_user_name or "",
        "reason": reason,
        "batch": params["batch"],
        "force": params["force"],
        "set": overrides,
    }
    return validate_block(RunSpec, facts, "the form")


@settled()
def open_it(entry: Entry, run: str, dag_run: Any, params: Json) -> None:
    """Make the run's branch, or find it."""
    spec = open_run(entry.line(), spec_of(dag_run, params, run))
    LOG.info("run %s of line %s: branch runs/%s on %s", run, entry.name, run, spec.base[:10])


def successors(step: Step) -> tuple[str, ...]:
    """The steps that may follow a stage: what the pipeline's own rule says for each of its verdicts.

    Where two of them lead to different steps, the DAG needs a decision.
    """
    before = {stage.name: Said("done", None) for stage in STAGES[: STAGES.index(step)]}
    found = (next_step({**before, step.name: Said("done", word)}) for word in step.verdicts or (None,))
    return tuple(dict.fromkeys(found))


@settled()
def decide(entry: Entry, step: Step, run: str) -> str:
    """The step that follows a stage of this run, by its reports up to there."""
    reports = read_run(entry.line(), run).reports
    known = {stage.name: reports[stage.name] for stage in STAGES[: STAGES.index(step) + 1] if stage.name in reports}
    chosen = next_step(known)
    if chosen == step.name or step.name not in known:
        raise AirflowException(f"run {run} has no report of {step.name}: clear the task {step.name}")
    LOG.info("%s: %s. %s -> %s", step.name, known[step.name].verdict, known[step.name].why, chosen)
    if entry.gpu_hours is not None and chosen in STAGE_NAMES_ON_GPU:
        _hold_budget(entry, entry.gpu_hours)
    return chosen


def _hold_budget(entry: Entry, hours: float) -> None:
    """Raise AirflowFailException where the line used its GPU hours up; what was taken in stays pending."""
    with reading(entry.line().git) as main:
        used = gpu_hours_since(main.ledger(), datetime.now(UTC) - timedelta(days=BUDGET_DAYS))
    if used >= hours:
        raise AirflowFailException(
            f"line {entry.name} used {used:.1f} of its {hours:g} GPU hours in {BUDGET_DAYS} days: raise gpu_hours in "
            "lines.yaml and clear this task, or let it wait; its assets stay pending"
        )


def gpu_hours_since(ledger: Ledger, moment: datetime) -> float:
    """The GPU hours of all runs that ended after a moment."""
    recent = (event for event in ledger.runs.values() if datetime.fromisoformat(event.at) >= moment)
    return sum(float(event.gpu_seconds) for event in recent) / 3600


@settled()
def report(entry: Entry, run: str, **context: Any) -> dict[str, Any]:
    """How the run ended, as main has it: logged, counted, told to whom it concerns.

    Raises:
        AirflowFailException: the run failed, or left nothing on main.
    """
    with reading(entry.line().git) as main:
        ledger = main.ledger()
        event = _event(ledger, run)
        measure(entry, event, ledger, main)
    found = {key: getattr(event, key) for key in ("run", "outcome", "why", "version", "drift", "gate", "seconds")}
    LOG.info("run %s ended: %s %s. %s", run, event.outcome, event.version or "", event.why)
    if event.outcome == "failed":
        raise AirflowFailException(f"run {run} failed: {event.why}")
    tell(entry, event.outcome, found, context)
    return found


@settled()
def decide_after_report(entry: Entry, run: str) -> list[str]:
    """What a run's outcome asks for: a person, or that its new version is made known."""
    with reading(entry.line().git) as main:
        ledger = main.ledger()
    event = _event(ledger, run)
    if event.outcome == "held" and run not in ledger.answers:
        return ["ask"]
    return ["publish"] if event.outcome == "promoted" else []


@settled()
def publish(entry: Entry, run: str, *, outlet_events: Any, **_context: Any) -> None:
    """Emit the version's asset event, so that what serves the model can follow; skipped where there is no version."""
    with reading(entry.line().git) as main:
        event = _event(main.ledger(), run)
        record = next((r for r in main.records() if r.version == event.version), None)
    if event.outcome != "promoted" or record is None:
        raise AirflowSkipException(f"run {run} ended {event.outcome}: there is no new version")
    outlet_events[version_asset(entry.name)].extra = version_facts(record)


def version_asset(name: str) -> Asset:
    """The asset that is updated with each new champion of a line; its events carry `version_facts`."""
    return Asset(name=f"retain/{name}/champion", uri=f"retain://{name}/champion")


def landing_asset(name: str) -> Asset:
    """The asset whose updates start a run of a line: whoever fills the landing emits it."""
    return Asset(name=f"retain/{name}/landing", uri=f"retain://{name}/landing")


def version_facts(record: Record) -> dict[str, Any]:
    """What an asset event says of a version: enough to fetch exactly these bytes."""
    facts = {key: getattr(record, key) for key in ("version", "parent", "run", "created")}
    return facts | {"adapter": record.digests.state["adapter"], "base": record.digests.base}


def _event(ledger: Ledger, run: str) -> RunEvent:
    event = ledger.runs.get(run)
    if not event:
        raise AirflowFailException(f"main knows nothing of run {run}: clear the task close")
    return event
