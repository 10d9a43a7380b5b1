"""What a person does to a line, from a form: each act is a commit on main with its event, signed, in their name.

retain_rollback     an older version is the champion again; the line's version asset says so
retain_withdraw     an image, or all of a source, is taken out for ever

One DAG for all lines, with a choice of the line: people look for the act, not for the line's copy of it. The person is
Airflow's authenticated user. A try again and a cleared task find an act that is done: the commands repeat none, and a
rollback that was made for this DAG run is not made again after later versions were promoted.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, AssetAlias, Context, Param
from airflow.sdk.exceptions import AirflowSkipException

from cl_steps.documents import Json
from cl_steps.errors import IntegrityError, UsageError
from cl_steps.ledger.events import RollbackEvent
from cl_steps.orchestration import light
from cl_steps.orchestration.on_line import Call, OnLine
from cl_steps.orchestration.page_places import page_place
from cl_steps.orchestration.registry import Entry, line_called, lines_file, read_lines
from cl_steps.orchestration.settling import settled
from cl_steps.repository.mainline import reading

BEGINNING = datetime(2024, 1, 1, tzinfo=UTC)
RESTORED = AssetAlias("retain/restored")
"""Stands for the version asset of whichever line was rolled back: which one, the form says."""
WORDS = r"^[^\x00]*[^\x00\s][^\x00]*$"
VERSION = r"^v[1-9][0-9]{0,5}(?!\n)$"
SHA256 = r"^[0-9a-f]{64}(?!\n)$"
"""As browsers and Python read them alike; to Python's `$` a last line break is the end."""


def rollback(context: Context) -> Call:
    """The command that restores a version."""
    entry, form, person = _asked(context)
    relearn = ("--relearn",) if form["relearn"] else ()
    return Call("rollback", entry, ("rollback", form["version"], *relearn, *_signed(entry, form, person)), trusted=True)


def rolled_back(context: Context) -> bool:
    """Whether this DAG run did so already."""
    entry, form, person = _asked(context)
    with reading(entry.line().git) as main:
        events = main.ledger().rollbacks
    return any(_is_this(event, form, person, context["dag_run"].run_after) for event in events)


def withdraw(context: Context) -> Call:
    """The command that takes an image or a source out."""
    entry, form, person = _asked(context)
    if bool(form["sha256"]) == bool(form["source"]):
        raise UsageError(
            "an image's SHA-256 or a source must be given, and not both: trigger it again with one of them"
        )
    what = (form["sha256"],) if form["sha256"] else (f"--source={form['source']}",)
    erase = ("--erase",) if form["erase"] else ()
    return Call("withdraw", entry, ("withdraw", *what, *erase, *_signed(entry, form, person)), trusted=True)


def page(context: Context) -> Call:
    """The command that writes the line's page anew; skipped where the line has none."""
    entry = _entry(context["params"])
    place = page_place(entry)
    if not entry.page or not place:
        raise AirflowSkipException(f"line {entry.name} has no page")
    return Call("page", entry, ("report", entry.workspace, "--to", place))


@settled()
def publish(params: Json, *, outlet_events: Any, **_context: Any) -> None:
    """Emit the line's version asset with its champion, so that what serves the model follows."""
    entry = _entry(params)
    with reading(entry.line().git) as main:
        champion = main.champion().version
        record = next((record for record in main.records() if record.version == champion), None)
    if record is None:
        raise IntegrityError(f"main has no record of its champion {champion}: `retain verify --all` says what is wrong")
    outlet_events[RESTORED].add(light.version_asset(entry.name), extra=light.version_facts(record))


def _asked(context: Context) -> tuple[Entry, Json, str]:
    """The line, the form and who filled it in; raises UsageError where that is nobody."""
    form, person = context["params"], context["dag_run"].triggering_user_name
    if not person:
        raise UsageError("an act needs a person, and this run was triggered by none: trigger it in Airflow as yourself")
    return _entry(form), form, person


def _entry(form: Json) -> Entry:
    return line_called(form["line"], lines_file())


def _signed(entry: Entry, form: Json, person: str) -> tuple[str, ...]:
    """Where, why and by whom; one word each, so that nothing in it is taken for an option."""
    return (f"--dir={entry.workspace}", f"--reason={_reason(form)}", f"--by={person}", "--through=airflow")


def _reason(form: Json) -> str:
    return str(form["reason"]).strip()


def _is_this(event: RollbackEvent, form: Json, person: str, asked: datetime) -> bool:
    """Whether a rollback on record is the one that a form asked for at that moment."""
    wanted = (form["version"], person, _reason(form), form["relearn"])
    said = (event.version, event.by, event.reason, event.relearn)
    return said == wanted and datetime.fromisoformat(event.at) >= asked.replace(microsecond=0)


def _form(lines: list[str], **more: Param) -> dict[str, Param]:
    reason = Param(type="string", pattern=WORDS, maxLength=500, title="Why", description="Recorded with your name.")
    return {"line": Param(type="string", enum=lines, title="Line"), **more, "reason": reason}


def rollback_form(lines: list[str]) -> dict[str, Param]:
    """What ops say of a rollback."""
    return _form(
        lines,
        version=Param(
            type="string", pattern=VERSION, title="Version", description="Such as v6: the next champion."
        ),
        relearn=Param(
            False, type="boolean", title="Learn again what later versions had learnt",
            description="No: their images are set aside. Yes: they wait for the next night.",
        ),
    )  # fmt: skip


def withdraw_form(lines: list[str]) -> dict[str, Param]:
    """What ops say of a withdrawal."""
    return _form(
        lines,
        sha256=Param(
            None, type=["null", "string"], pattern=SHA256, title="Image",
            description="Its SHA-256, as `retain asset FILE` says it. Empty: a source.",
        ),
        source=Param(
            None, type=["null", "string"], pattern=WORDS, maxLength=500, title="Source",
            description="All images that came with this source. Empty: one image.",
        ),
        erase=Param(
            False, type="boolean", title="Erase",
            description="Delete the bytes that hold it; old versions are restored without it from then on.",
        ),
    )  # fmt: skip


def _act(name: str, description: str, form: dict[str, Param]) -> DAG:
    return DAG(
        f"retain_{name}",
        description=description,
        schedule=None,
        start_date=BEGINNING,
        catchup=False,
        # Acts on different lines do not wait for each other; on the same line main takes one after the other.
        max_active_runs=16,
        dagrun_timeout=timedelta(days=1),
        tags=["retain"],
        doc_md=(Path(__file__).parent / f"{name}.md").read_text(encoding="utf-8"),
        params=form,
        default_args={
            "retries": 5,
            "retry_delay": timedelta(seconds=30),
            "retry_exponential_backoff": 2.0,
            "execution_timeout": timedelta(hours=6),
        },
    )


def build_acts(lines: list[str]) -> dict[str, DAG]:
    """Both DAGs, by their ids; none where there is no line."""
    if not lines:
        return {}
    write = partial(OnLine, task_id="page", call=page, doc_md="the line's page, anew")
    with _act("rollback", "An older version is the champion again", rollback_form(lines)) as back:
        act = OnLine(
            task_id="rollback", call=rollback, is_done=rolled_back, doc_md="`retain rollback`: one commit on main"
        )
        told = PythonOperator(
            task_id="publish", python_callable=publish, outlets=[RESTORED], doc_md="the champion as an asset event"
        )
        act >> [told, write()]
    with _act("withdraw", "An image, or all of a source, is taken out for ever", withdraw_form(lines)) as out:
        OnLine(task_id="withdraw", call=withdraw, doc_md="`retain withdraw`: one commit on main") >> write()
    return {dag.dag_id: dag for dag in (back, out)}


globals().update(build_acts([entry.name for entry in read_lines(lines_file())]))
