"""The question about a held run: how long it stands, what it says, and what becomes of the answer."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk.exceptions import AirflowSkipException

from cl_steps.__main__ import _parser
from cl_steps.commands.answer import refuse
from cl_steps.ledger.events import RunEvent
from cl_steps.orchestration.asking import FORM, Ask, answer_arguments, question, time_to_answer
from cl_steps.orchestration.pods.profiles import Ask as Asked
from cl_steps.orchestration.registry import Entry
from cl_steps.steps import close, promote
from tests.lasting import whole_event
from tests.lines.small import GOOD, make_workspace, play

ENTRY = Entry(name="a", workspace="https://git/a", store="s3://b/a", schedule="0 2 * * *")
NOW = datetime(2026, 1, 1, 6, 0, tzinfo=UTC)
RESPONDED = {"responded_at": NOW, "chosen_options": ["Approve"], "params_input": {"comment": " seen it "}}


def asked(entry: Entry = ENTRY) -> Ask:
    return Ask(task_id="ask", entry=entry, run="2026-01-01-abc", params=FORM)


def answered(**facts: Any) -> dict[str, str]:
    return asked().execute_complete({}, {**RESPONDED, "responded_by_user": {"id": "7", "name": "ann"}, **facts})  # type: ignore[typeddict-item]


def test_a_question_ends_before_the_next_night_and_stands_no_longer_than_the_line_wants() -> None:
    assert time_to_answer(ENTRY, NOW) == timedelta(hours=19, minutes=45)
    assert time_to_answer(ENTRY.model_copy(update={"ask": Asked(hours=3)}), NOW) == timedelta(hours=3)
    assert time_to_answer(ENTRY, NOW.replace(hour=1, minute=50)) == timedelta(seconds=1)
    assert time_to_answer(ENTRY.model_copy(update={"schedule": None}), NOW) == timedelta(hours=20)


def test_a_yes_and_a_no_carry_the_authenticated_person_and_the_comment() -> None:
    assert answered() == {"command": "approve", "by": "ann", "reason": "seen it"}
    no = answered(chosen_options=["Reject"], params_input={"comment": ""})
    assert (no["command"], no["by"]) == ("refuse", "ann")
    assert no["reason"]


def test_nobody_is_no_yes_and_no_no() -> None:
    with pytest.raises(AirflowSkipException, match="nobody answered"):
        answered(chosen_options=["Reject"], responded_by_user=None)


def test_silence_never_means_yes_and_only_the_named_may_answer() -> None:
    ask = asked(ENTRY.model_copy(update={"ask": Asked(assignees=("ann", "bob"))}))
    assert ask.defaults == [Ask.REJECT]
    assert ask.assigned_users == [{"id": "ann", "name": "ann"}, {"id": "bob", "name": "bob"}]
    assert set(ask.params) == {"comment"}


def test_nobody_is_asked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promote, "_check_figures", lambda *_: None)
    line = make_workspace(tmp_path / "line")
    play(line, "r-2", {**GOOD, "gate": "inconclusive"})
    assert close.run(line, "r-2") == "held"
    folder = str(Path(line.git).parents[1])
    ask = Ask(task_id="ask", entry=Entry(name="a", workspace=folder), run="r-2", params=FORM)
    shown: list[str] = []
    monkeypatch.setattr(HITLOperator, "execute", lambda operator, _: shown.append(operator.subject))
    ask.execute({})  # type: ignore[typeddict-item]
    assert shown == ["Line a: may run r-2 be promoted?"]
    refuse("r-2", "no", "ann", "command line", folder)
    with pytest.raises(AirflowSkipException, match="answered by ann: no"):
        ask.execute({})  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("gate", "words", "then"),
    [
        (None, "be learnt", "the next run learns exactly this batch"),
        ("inconclusive", "be promoted", "its candidate becomes the champion now"),
    ],
)
def test_the_question_says_what_a_yes_does_and_quotes_the_data(gate: str | None, words: str, then: str) -> None:
    said = {"kind": "run", "run": "r-1", "gate": gate, "why": "slice `x`\n# <img src=x>", "outcome": "held"}
    event = RunEvent.from_document(whole_event({**said, "batch": {"runs": ["r-1"], "assets": 12}}))
    headline, body = question(ENTRY, event)
    assert words in headline
    assert f"**Approve**: {then}." in body
    assert "    slice `x` # <img src=x>" in body.splitlines()
    assert "12 images" in body


def test_the_answer_is_a_command_that_exists_whatever_the_person_wrote() -> None:
    from jinja2.sandbox import SandboxedEnvironment

    hostile = {"command": "approve", "by": "--dir=/tmp", "reason": "{{ 7 * 7 }} $(id) --json\nRun-Id: x"}
    environment = SandboxedEnvironment()
    ti = type("TI", (), {"xcom_pull": staticmethod(lambda task_ids: hostile)})
    rendered = [environment.from_string(text).render(ti=ti) for text in answer_arguments(ENTRY, "2026-01-01-abc")]
    chosen = vars(_parser().parse_args(rendered))
    assert chosen["command"] == "approve"
    assert (chosen["run"], chosen["dir"], chosen["by"]) == ("2026-01-01-abc", "https://git/a", "--dir=/tmp")
    assert chosen["reason"] == hostile["reason"]
    assert chosen["through"] == "airflow"
    assert "49" not in subprocess.list2cmdline(rendered)
