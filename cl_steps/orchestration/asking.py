"""A person is asked in Airflow about a run that is held; the answer goes to the ledger by a trusted step."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk import Context, Param
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.execution_time.hitl import HITLUser

from cl_steps.ledger.events import RunEvent
from cl_steps.orchestration.registry import Entry
from cl_steps.orchestration.schedule import next_start
from cl_steps.orchestration.settling import settled
from cl_steps.repository.mainline import reading

FORM = {"comment": Param("", type="string", maxLength=500, title="Why", description="Recorded with your answer.")}
ANSWER = "ti.xcom_pull(task_ids='ask')"
"""What `Ask` returns, in the templates of the task that carries it to the ledger."""


class Ask(ApprovalOperator):  # type: ignore[misc]
    """Waits for a yes or a no, at most until shortly before the next night; takes up no worker meanwhile.

    Like any task it is tried again, which asks again: Airflow fails a task that is answered before its scheduler has
    seen it wait (a second or three; apache/airflow#71580), and the answer is lost with the try.
    """

    template_fields = (*ApprovalOperator.template_fields, "run")

    def __init__(self, *, entry: Entry, run: str, **options: Any) -> None:
        users = [HITLUser(id=name, name=name) for name in entry.ask.assignees] or None
        super().__init__(
            subject=f"Line {entry.name}: a run is held",
            # Without an answer: nothing is learnt, and `execute_complete` sees that nobody said so.
            defaults=ApprovalOperator.REJECT,
            assigned_users=users,
            execution_timeout=None,
            **options,
        )
        self.entry, self.run = entry, run

    def execute(self, context: Context) -> None:
        """Ask, with what the ledger says of the run.

        Raises:
            AirflowSkipException: somebody answered already, on the command line or in a try before.
        """
        with settled(), reading(self.entry.line().git) as main:
            event, given = main.ledger().runs[self.run], main.ledger().answers.get(self.run)
        if given:
            raise AirflowSkipException(f"run {self.run} was answered by {given.by}: {'yes' if given.yes else 'no'}")
        self.subject, self.body = question(self.entry, event)
        self.response_timeout = time_to_answer(self.entry, datetime.now(UTC))
        super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, str]:
        """The answer: which command records it, who gave it and why.

        Raises:
            AirflowSkipException: nobody answered in time; the run stays held and can be answered later.
        """
        # Not ApprovalOperator's own, which skips what follows a no: a no is recorded too.
        answer = HITLOperator.execute_complete(self, context, event)
        person = answer["responded_by_user"]
        if not person:
            raise AirflowSkipException(f"nobody answered in time: run {self.run} stays held (retain approve, refuse)")
        yes = answer["chosen_options"] == [self.APPROVE]
        comment = str(answer["params_input"].get("comment") or "").strip()
        return {
            "command": "approve" if yes else "refuse",
            "by": str(person["name"] or person["id"]),
            "reason": comment or "answered in Airflow, without a comment",
        }


def answer_arguments(entry: Entry, run: str) -> tuple[str, ...]:
    """The command that records the answer. Templates are filled in once: what a person wrote is never one itself."""
    return (
        f"{{{{ {ANSWER}['command'] }}}}",
        run,
        f"--dir={entry.workspace}",
        f"--by={{{{ {ANSWER}['by'] }}}}",
        f"--reason={{{{ {ANSWER}['reason'] }}}}",
        "--through=airflow",
    )


def time_to_answer(entry: Entry, now: datetime) -> timedelta:
    """How long a question stands: as the line says, and never into the next night."""
    wished = timedelta(hours=entry.ask.hours)
    if entry.cron is None:
        return wished
    left = next_start(entry.cron, entry.timezone, now) - now - timedelta(minutes=entry.ask.margin_minutes)
    return max(min(wished, left), timedelta(seconds=1))


def question(entry: Entry, event: RunEvent) -> tuple[str, str]:
    """Headline and text (Markdown) of the question; what comes from data is quoted, never formatted."""
    by_drift = event.gate is None
    headline = f"Line {entry.name}: may run {event.run} {'be learnt' if by_drift else 'be promoted'}?"
    then = "the next run learns exactly this batch" if by_drift else "its candidate becomes the champion now"
    assets = event.batch.assets if event.batch else 0
    text = [
        f"Held {'by the drift check' if by_drift else 'by the gate'}, with {assets} images in its batch:",
        f"    {_plain(event.why)}",
        f"**Approve**: {then}. **Reject**, or no answer: nothing changes, its images stay set aside.",
        "The line's page (tab *Retain* of this DAG) shows the pictures and the figures.",
    ]
    return headline, "\n\n".join(text)


def _plain(text: str) -> str:
    """Text on one line that a Markdown code block shows as it is."""
    return " ".join(text.split())[:1000]
