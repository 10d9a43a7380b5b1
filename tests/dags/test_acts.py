"""Acts of people by a form: who, why and what reach the command as they are; serving is told; nothing happens twice."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import DAG
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import AirflowFailException, ParamValidationError
from airflow.sdk.execution_time.context import OutletEventAccessors

import cl_steps.steps.promote
from cl_steps.__main__ import _parser
from cl_steps.orchestration import light, runners
from cl_steps.orchestration.on_line import OnLine
from cl_steps.orchestration.play import Player
from cl_steps.orchestration.pods.profiles import Profile
from cl_steps.orchestration.pods.steppod import StepPod
from cl_steps.records.keys import make_keys
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from dags import acts, maintenance
from tests.dags.acting import ActingChild, with_versions
from tests.dags.conftest import WORKSPACE, make_line
from tests.dags.test_pods import LARGE
from tests.lasting import event, read_json, whole_champion
from tests.lines.small import GOOD, make_workspace, play

pytestmark = pytest.mark.filterwarnings("default")
SHA = "0123456789abcdef" * 4
DAYS = count(1)
HOSTILE = """--relearn --dir=/elsewhere
{{ var.value.secret }} {% for x in ().__class__.__mro__ %}{{ x }}{% endfor %}
$(rm -rf /) `id`; $HOME $$ ${PATH} | tee /tmp/x && false # ' " \\ <script>alert(1)</script>

Run-Id: 2026-01-01-abcdef12
Retain-Version: v9"""


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    """The tiny line with two versions, whose commands are written down."""
    monkeypatch.setattr(runners, "Child", ActingChild)
    ActingChild.CALLS.clear()
    ActingChild.CODES.clear()
    shutil.rmtree(WORKSPACE, ignore_errors=True)
    WORKSPACE.mkdir(parents=True)
    made = make_line(WORKSPACE)
    with_versions(made, 1, 2)
    return made


def dag_of(name: str) -> DAG:
    return acts.build_acts(["tiny"])[f"retain_{name}"]


def act(name: str, moment: datetime | None = None, **form: Any) -> dict[str, str]:
    """The states of the tasks of a DAG run that `dag_test` triggered with this form."""
    moment = moment or datetime(2026, 5, next(DAYS), tzinfo=UTC)
    run = dag_of(name).test(logical_date=moment, run_after=moment, run_conf={"line": "tiny", **form})
    return {task.task_id: str(task.state) for task in run.get_task_instances()}


def champion_events() -> list[tuple[str, dict[str, Any]]]:
    """Which asset the events of champions are of, and what they say, oldest first."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        return [
            (event.asset.name, event.extra) for event in session.scalars(select(AssetEvent).order_by(AssetEvent.id))
        ]


def test_a_rollback_is_done_in_the_persons_name_and_serving_is_told(player: Player, line: Line) -> None:
    before = len(champion_events())
    found = act("rollback", version="v1", reason="v2 draws six fingers", relearn=True)
    assert found == {"rollback": "success", "publish": "success", "page": "skipped"}
    [(arguments, _)] = ActingChild.CALLS
    where, words = f"--dir={WORKSPACE}", "--reason=v2 draws six fingers"
    assert arguments == ("rollback", "v1", "--relearn", where, words, "--by=dag_test", "--through=airflow")
    [(asset, said)] = champion_events()[before:]
    assert asset == light.version_asset("tiny").name
    assert (said["version"], said["adapter"], said["base"]) == ("v1", f"{1:032x}.dir", f"{'b' * 32}.dir")


def test_a_cleared_rollback_is_not_made_again_after_later_nights(player: Player, line: Line) -> None:
    moment = datetime.now(UTC) - timedelta(seconds=1)
    form = {"version": "v1", "reason": "worse", "relearn": False}
    act("rollback", moment, **form)
    with_versions(line, 3)
    before = len(champion_events())
    assert act("rollback", moment, **form)["rollback"] == "success"
    assert len(ActingChild.CALLS) == 1
    # What serves is told of the champion as it is, not of the one that a past act restored.
    assert [said["version"] for _, said in champion_events()[before:]] == ["v3"]
    # The same wish at another time is another act.
    with_versions(line, 4)
    act("rollback", datetime.now(UTC) + timedelta(seconds=2), **form)
    assert len(ActingChild.CALLS) == 2


@pytest.mark.parametrize(
    ("said", "is_this"),
    [({}, True), ({"seconds": 1}, True), ({"seconds": -1}, False), ({"version": "v1"}, False), ({"by": "bob"}, False),
     ({"reason": "another"}, False), ({"relearn": True}, False)],
)  # fmt: skip
def test_a_rollback_on_record_is_the_one_asked_for_where_it_says_the_same_and_came_no_sooner(
    said: dict[str, Any], is_this: bool
) -> None:
    asked = datetime(2026, 1, 1, 2, 0, 0, 700_000, tzinfo=UTC)
    at = asked.replace(microsecond=0) + timedelta(seconds=said.pop("seconds", 0))
    form = {"version": "v2", "reason": " worse ", "relearn": False}
    made = {"version": "v2", "lineage": ["v1", "v2"], "by": "ann", "reason": "worse", **said}
    assert acts._is_this(event(kind="rollback", at=at.isoformat(), **made), form, "ann", asked) is is_this  # type: ignore[arg-type]


def test_what_the_command_refuses_is_red_and_nobody_is_told_of_a_version(player: Player, line: Line) -> None:
    ActingChild.CODES["tiny"] = [2]
    before = len(champion_events())
    found = act("rollback", version="v7", reason="no such version")
    assert (found["rollback"], found["publish"], found["page"]) == ("failed", "upstream_failed", "upstream_failed")
    assert len(champion_events()) == before


def test_an_image_or_a_source_is_withdrawn_and_no_new_version_announced(player: Player, line: Line) -> None:
    before = len(champion_events())
    assert act("withdraw", sha256=SHA, reason="no consent")["withdraw"] == "success"
    assert act("withdraw", source="agency; rm -rf /", reason="contract ended", erase=True)["withdraw"] == "success"
    first, second = (arguments for arguments, _ in ActingChild.CALLS)
    assert first[:2] == ("withdraw", SHA)
    assert second[:3] == ("withdraw", "--source=agency; rm -rf /", "--erase")
    assert vars(_parser().parse_args(list(second)))["source"] == "agency; rm -rf /"
    assert len(champion_events()) == before


@pytest.mark.parametrize("form", [{}, {"sha256": SHA, "source": "agency"}])
def test_what_to_withdraw_is_said_once(line: Line, form: dict[str, str]) -> None:
    values = {"line": "tiny", "sha256": None, "source": None, "erase": False, "reason": "no consent", **form}
    context = {"params": values, "dag_run": SimpleNamespace(triggering_user_name="ann")}
    with pytest.raises(AirflowFailException, match="and not both"):
        OnLine(task_id="withdraw", call=acts.withdraw).execute(context)  # type: ignore[arg-type]


def test_what_a_person_writes_reaches_the_command_as_it_is(player: Player, line: Line) -> None:
    act("rollback", version="v1", reason=HOSTILE)
    [(arguments, _)] = ActingChild.CALLS
    parsed = vars(_parser().parse_args(list(arguments)))
    assert (parsed["reason"], parsed["version"], parsed["relearn"]) == (HOSTILE, "v1", False)
    assert (parsed["dir"], parsed["by"], parsed["through"]) == (str(WORKSPACE), "dag_test", "airflow")
    with reading(line.git) as main:
        [event] = main.ledger().rollbacks
    assert event.reason == HOSTILE


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("rollback", {"version": "v1"}),
        ("rollback", {"version": "v1", "reason": "  "}),
        ("rollback", {"version": "v1", "reason": "a\x00b"}),
        ("rollback", {"version": "v0", "reason": "x"}),
        ("rollback", {"version": "v1 --relearn", "reason": "x"}),
        ("rollback", {"version": "v1\n", "reason": "x"}),
        ("rollback", {"version": "champion", "reason": "x"}),
        ("rollback", {"version": "v1", "reason": "x", "line": "other"}),
        ("rollback", {"version": "v1", "reason": "x", "relearn": "no"}),
        ("withdraw", {"sha256": SHA.upper(), "reason": "x"}),
        ("withdraw", {"sha256": SHA[:-1], "reason": "x"}),
        ("withdraw", {"source": "", "reason": "x"}),
        ("withdraw", {"sha256": SHA}),
    ],
)
def test_the_form_refuses(name: str, form: dict[str, Any]) -> None:
    params = {"rollback": acts.rollback_form, "withdraw": acts.withdraw_form}[name](["tiny"])
    filled = ParamsDict(params)
    filled["line"] = "tiny"
    with pytest.raises(ParamValidationError):  # noqa: PT012  (by the value, or by its absence)
        for key, value in form.items():
            filled[key] = value
        filled.validate()


def test_an_act_needs_a_person() -> None:
    context = {"params": {"line": "tiny", "version": "v1"}, "dag_run": SimpleNamespace(triggering_user_name=None)}
    task = OnLine(task_id="rollback", call=acts.rollback)
    with pytest.raises(AirflowFailException, match="needs a person"):
        task.execute(context)  # type: ignore[arg-type]


def test_without_lines_there_is_nothing_to_act_on() -> None:
    assert acts.build_acts([]) == {}
    assert {dag.schedule for dag in acts.build_acts(["a"]).values()} == {None}
    assert all(dag.doc_md for dag in acts.build_acts(["a"]).values())


def in_pod(monkeypatch: pytest.MonkeyPatch, reason: str) -> tuple[OnLine, dict[str, Any], list[StepPod]]:
    """The task of a rollback of a line of pods, its context, and the operators whose pods it would start."""
    started: list[StepPod] = []
    monkeypatch.setattr(KubernetesPodOperator, "execute", lambda self, context: started.append(self))
    call = acts.Call("rollback", LARGE, ("rollback", "v1", f"--reason={reason}"), trusted=True)
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    run = SimpleNamespace(dag_id="retain_rollback", run_id="manual", logical_date=None, run_after=moment)
    return OnLine(task_id="rollback", call=lambda context: call), {"dag_run": run}, started


def test_a_line_of_pods_acts_in_a_pod_that_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    task, context, started = in_pod(monkeypatch, "{{ 7 * 7 }} $(AWS_CONFIG_FILE) $$x")
    task.execute(context)  # type: ignore[arg-type]
    [operator] = started
    pod = operator.build_pod_request_obj(dry_run=True)
    [container] = pod.spec.containers
    # As Kubernetes reads it: $$ is a $, so that nothing of it is taken for one of its variables.
    assert container.args[2] == "--reason={{ 7 * 7 }} $$(AWS_CONFIG_FILE) $$$$x"
    secrets = {volume.secret.secret_name for volume in pod.spec.volumes if volume.secret}
    assert secrets == {"large-trusted", "large-signing"}
    assert pod.metadata.labels["retain.dev/role"] == "trusted"
    assert pod.metadata.labels["retain.dev/run"].startswith("2026-01-01-")
    task.on_kill()
    assert operator._killed


def test_a_deferred_pod_is_taken_up_again_by_an_operator_like_it(monkeypatch: pytest.MonkeyPatch) -> None:
    task, context, _ = in_pod(monkeypatch, "x")
    seen: list[tuple[type, Any]] = []
    monkeypatch.setattr(StepPod, "trigger_reentry", lambda self, context, event: seen.append((type(self), event)))
    task.trigger_reentry(context, {"name": "p"})  # type: ignore[arg-type]
    assert seen == [(StepPod, {"name": "p"})]


def test_what_is_done_by_the_time_its_pod_ends_is_still_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pod's own event must not keep the operator from hearing of its end: the pod would stay."""
    task, context, started = in_pod(monkeypatch, "x")
    task._is_done = lambda _: True
    seen: list[Any] = []
    monkeypatch.setattr(StepPod, "trigger_reentry", lambda self, context, event: seen.append(event))
    monkeypatch.setattr(StepPod, "forget", lambda self, context: seen.append("forgotten"))
    task.execute(context)  # type: ignore[arg-type]
    assert started == []
    assert seen.pop() == "forgotten", "the pod of a try that Airflow lost"
    task.trigger_reentry(context, {"name": "p"})  # type: ignore[arg-type]
    assert seen == [{"name": "p"}]


def test_a_process_that_acts_has_the_signing_key(tmp_path: Path) -> None:
    make_keys(tmp_path, "retain")
    entry = LARGE.model_copy(update={"profile": Profile(runner="local"), "keys": str(tmp_path)})
    task = runners.runner_of(entry).command("rollback", ("rollback",), "r", trusted=True)
    assert task.settings["RETAIN_SIGNING_KEY"] == str(tmp_path / "signing.pem")
    assert "RETAIN_SIGNING_KEY" not in runners.runner_of(entry).command("page", ("report",), "r").settings


def test_a_champion_without_a_record_is_no_news(line: Line) -> None:
    from cl_steps.repository.mainline import Change

    with reading(line.git) as main:
        assert main.push(Change({"state/champion.json": json.dumps(whole_champion("v9")).encode()}, "lost"))
    with pytest.raises(AirflowFailException, match="no record of its champion v9"):
        acts.publish({"line": "tiny"}, outlet_events=OutletEventAccessors())


@pytest.mark.slow
def test_the_commands_themselves_act_on_a_line(player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    """`retain rollback` and `retain prune` in processes of their own, on a line with two real versions."""
    monkeypatch.setattr(cl_steps.steps.promote, "_check_figures", lambda root, params, verdict, run: None)
    shutil.rmtree(WORKSPACE, ignore_errors=True)
    line = make_workspace(WORKSPACE, signed=True)
    line.save(WORKSPACE)
    play(line, "r-1", GOOD)
    cl_steps.steps.promote.run(line, "r-1")
    before = len(champion_events())
    assert act("rollback", version="v1", reason=HOSTILE)["rollback"] == "success"
    with reading(line.git) as main:
        [event] = main.ledger().rollbacks
        assert (event.version, event.by, event.reason) == ("v1", "dag_test", HOSTILE)
        assert read_json(main, "state/champion.json")["version"] == "v1"
        assert any(name.endswith(".sig") and "rollback" in name for name in main.folder_files("events"))
        [record] = [record for record in main.records() if record.version == "v1"]
    [(_, said)] = champion_events()[before:]
    assert said == light.version_facts(record)
    context = {"dag_run": SimpleNamespace(dag_id="d", run_id="r", logical_date=None, run_after=datetime.now(UTC))}
    entry = LARGE.model_copy(update={"name": "tiny", "workspace": str(WORKSPACE), "profile": Profile(runner="local")})
    call = maintenance.prune(entry.model_copy(update={"store": "", "work": "", "landing": ""}))
    OnLine(task_id="prune", call=lambda _: call).execute(context)  # type: ignore[arg-type]
