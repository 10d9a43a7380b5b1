"""One bad entry of `lines.yaml` among good ones, as Airflow itself reads it: who has a DAG, and what ops see."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.errors import ParseImportError
from airflow.sdk.exceptions import AirflowFailException
from airflow.utils.session import create_session
from sqlalchemy import delete, select

from cl_steps.errors import UsageError
from cl_steps.orchestration import heads, last_good, line_dag
from cl_steps.orchestration.line_dag import build_all
from cl_steps.orchestration.play import Player
from cl_steps.orchestration.registry import TAKEN, Entry
from cl_steps.repository.mainline import Change, reading
from dags import lines
from dags.watch import watch
from tests.dags.conftest import make_line
from tests.dags.test_watch import Variables
from tests.lasting import whole_record

pytestmark = pytest.mark.filterwarnings("default")
DAGS = Path(lines.__file__).parent
GOOD = "{name: good, workspace: /srv/line}"
TYPO = "{name: bad, workspace: /srv/line, timezone: Europe/Berln}"
DUMB = "{name: dumb, workspace: /srv/line, notify: [{notifier: nowhere.Pigeon}]}"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write `lines.yaml` for an Airflow whose home is empty."""
    monkeypatch.setenv("RETAIN_LINES", str(tmp_path / "lines.yaml"))
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))

    def written(text: str) -> None:
        (tmp_path / "lines.yaml").write_text(text, encoding="utf-8")

    return written


def in_task_of(line: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The DAGs that the process of a line's task finds."""
    with monkeypatch.context() as patch:
        patch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", f"retain_{line}")
        return set(build_all())


@pytest.fixture
def bag(write: Any) -> BundleDagBag:
    write(f"lines: [{TYPO}, {GOOD}, {DUMB}, 7]")
    return BundleDagBag(dag_folder=DAGS, bundle_path=DAGS, bundle_name="dags-folder")


def test_each_good_line_has_its_dag_and_each_bad_one_is_named_in_an_error_of_another_file(bag: BundleDagBag) -> None:
    of_all = {f"retain_{name}" for name in TAKEN}
    assert {name for name in bag.dags if name.startswith("retain_")} == {"retain_good", *of_all}
    [(file, error)] = bag.import_errors.items()
    assert file == "broken_lines.py"
    said = error.splitlines()
    assert any("line bad: " in line and "Europe/Berlin" in line for line in said)
    assert any("line dumb: " in line and "nowhere.Pigeon" in line for line in said)
    assert any("(entry 4)" in line for line in said)


def test_every_dag_has_a_limit_of_runs_at_once_and_a_deadline(bag: BundleDagBag) -> None:
    limits = {name: dag.max_active_runs for name, dag in bag.dags.items()}
    assert {name for name, most in limits.items() if most == 1} == {"retain_watch", "retain_audit", "retain_prune"}
    assert all(dag.dagrun_timeout and not dag.catchup for dag in bag.dags.values())
    assert bag.dags["retain_audit"].dagrun_timeout < timedelta(days=7)


def test_airflow_keeps_the_good_lines_on_schedule_and_shows_the_error(player: Player, bag: BundleDagBag) -> None:
    """An error of `lines.py` itself would make all its DAGs stale: none would be scheduled."""
    with create_session() as session:
        if not session.get(DagBundleModel, "dags-folder"):
            session.add(DagBundleModel(name="dags-folder"))
    sync_bag_to_db(bag, "dags-folder", None)
    with create_session() as session:
        [shown] = session.scalars(select(ParseImportError)).all()
        assert shown.filename == "broken_lines.py"
        assert "line bad: " in shown.stacktrace
        good = session.get(DagModel, "retain_good")
        assert (good.is_stale, good.has_import_errors) == (False, False)
        assert good.next_dagrun_create_after is not None
        session.execute(delete(ParseImportError))


def test_all_is_well_again_once_it_is_mended(write: Any) -> None:
    write(f"lines: [{GOOD}]")
    assert BundleDagBag(dag_folder=DAGS, bundle_path=DAGS, bundle_name="dags-folder").import_errors == {}


def test_a_dag_that_fails_half_way_leaves_no_half(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(entry: Entry, *rest: Any) -> None:
        if entry.name == "bad":
            raise ZeroDivisionError

    write(f"lines: [{GOOD}, {{name: bad, workspace: /w}}]")
    monkeypatch.setattr(line_dag, "_page", fail)
    assert set(build_all()) == {"retain_good"}
    assert not line_dag.build(Entry(name="good", workspace="/w")).auto_register


@pytest.mark.parametrize("broken", [f"lines: [{GOOD}, {TYPO}]", f"lines: [7, {GOOD}]", f"profiles: 1\nlines: [{GOOD}]"])
def test_a_task_of_a_good_line_does_not_hear_of_the_bad_one(
    write: Any, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    write(broken)
    assert in_task_of("good", monkeypatch) == {"retain_good"}


@pytest.mark.parametrize(
    "broken", ["lines: [", "- good", f"lines: [{GOOD}, {TYPO}]", "lines: [{name: bad}]", "lines: [7]"]
)
def test_a_task_under_way_ends_with_the_settings_that_it_began_with(
    write: Any, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    write("lines: [{name: bad, workspace: /w, retries: 3}]")
    assert in_task_of("bad", monkeypatch) == {"retain_bad"}
    write(broken)
    assert in_task_of("bad", monkeypatch) == {"retain_bad"}
    assert last_good.line_as_it_was("bad").retries == 3


def test_nothing_new_begins_by_settings_that_cannot_be_read_any_more(write: Any) -> None:
    write(f"lines: [{GOOD}, {{name: bad, workspace: /w}}]")
    assert set(build_all()) == {"retain_good", "retain_bad"}
    write(f"lines: [{GOOD}, {TYPO}]")
    assert set(build_all()) == {"retain_good"}
    write("lines: [")
    with pytest.raises(UsageError, match="not valid YAML"):
        build_all()


def test_a_line_that_was_taken_out_is_gone_for_its_tasks_too(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write(f"lines: [{GOOD}, {{name: other, workspace: /w}}]")
    assert in_task_of("other", monkeypatch) == {"retain_other"}
    write(f"lines: [{GOOD}]")
    assert in_task_of("other", monkeypatch) == set()
    write("lines: [")
    assert in_task_of("other", monkeypatch) == set()


def test_a_home_that_cannot_be_written_keeps_nothing_and_stops_nothing(
    write: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "nowhere"))
    write(f"lines: [{GOOD}]")
    assert in_task_of("good", monkeypatch) == {"retain_good"}
    write("lines: [")
    assert in_task_of("good", monkeypatch) == set()


def test_the_watch_is_red_and_names_each_bad_line_after_it_looked_at_the_good_ones(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "Variable", Variables())
    (tmp_path / "good").mkdir()
    record = {"version": "v1", "created": "2026-01-01T00:00:00+00:00"}
    with reading(make_line(tmp_path / "good").git) as main:
        assert main.push(Change({"versions/v0001.json": json.dumps(whole_record(record)).encode()}, "v1"))
    write(f"lines: [{TYPO}, {DUMB}, {{name: good, workspace: {tmp_path / 'good'}}}]")
    with pytest.raises(AirflowFailException) as caught:
        watch()
    assert "no run finished: good" in str(caught.value)
    assert "line bad: " in str(caught.value)
    assert str(caught.value).count("line dumb: ") == 1


def test_the_watch_is_red_where_the_file_is_none(write: Any) -> None:
    write("lines: [")
    with pytest.raises(AirflowFailException, match="not valid YAML"):
        watch()
