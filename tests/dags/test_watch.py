"""The watch over all lines: it is red where a line has had no finished run, and tells its people, not every hour."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk import Variable
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from cl_steps.orchestration import heads
from cl_steps.repository.git import git, text
from cl_steps.repository.mainline import Change, reading
from dags.watch import retain_watch, watch
from tests.dags.conftest import make_line
from tests.dags.test_telling import HERE, TOLD
from tests.lasting import whole_record


class Variables:
    """Airflow's, in memory."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str, default: str) -> str:
        return self.values.get(key, default)

    def set(self, key: str, value: str, description: str) -> None:
        self.values[key] = value


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> Variables:
    found = Variables()
    monkeypatch.setattr(heads, "Variable", found)
    return found


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write lines.yaml for lines whose last run finished so many hours ago."""
    TOLD.clear()
    monkeypatch.setenv("RETAIN_LINES", str(tmp_path / "lines.yaml"))

    def written(**hours: float) -> None:
        text = "{{ retain.line }}{{ ': main' if 'main was at' in retain.why or '' }}"
        notify = [{"of": ["overdue", "integrity"], "notifier": f"{HERE}.Pigeon", "arguments": {"text": text}}]
        entries = []
        for name, ago in hours.items():
            (tmp_path / name).mkdir()
            record = {"version": "v1", "created": (datetime.now(UTC) - timedelta(hours=ago)).isoformat()}
            with reading(make_line(tmp_path / name).git) as main:
                assert main.push(Change({"versions/v0001.json": json.dumps(whole_record(record)).encode()}, "v1"))
            entries.append({"name": name, "workspace": str(tmp_path / name), "notify": notify})
        (tmp_path / "lines.yaml").write_text(yaml.safe_dump({"lines": entries}), encoding="utf-8")

    return written


def test_all_is_well(lines: Any) -> None:
    lines(a=1, b=25)
    watch()
    assert TOLD == []


def test_lines_without_a_finished_run_are_named_and_their_people_told_once_a_day(
    lines: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lines(a=26.2, b=3, c=40, d=26.2 + 24)
    with pytest.raises(AirflowFailException, match=r"a for 26 hours, c for 40 hours, d for 50 hours"):
        watch()
    assert TOLD == ["a", "d"]
    assert [record.getMessage()[:6] for record in caplog.records if record.name == "retain.watch"] == [
        "line a", "line c", "line d",
    ]  # fmt: skip


def test_a_line_that_cannot_be_read_is_looked_at_again_and_hides_no_other(lines: Any, tmp_path: Path) -> None:
    lines(a=1, b=99)
    (tmp_path / "a" / ".retain" / "git" / "HEAD").unlink()
    with pytest.raises(AirflowFailException, match="b for 99 hours"):
        watch()
    lines_file = tmp_path / "lines.yaml"
    document = yaml.safe_load(lines_file.read_text())
    lines_file.write_text(yaml.safe_dump({"lines": document["lines"][:1]}))
    with pytest.raises(AirflowException, match="1 lines cannot be read: a:"):
        watch()


def push_back(folder: Path) -> str:
    """As whoever may push main can; returns where it was."""
    place = folder / ".retain" / "git"
    before = text(place, "rev-parse", "main")
    git(place, "update-ref", "refs/heads/main", text(place, "rev-parse", "main~1"))
    return before


def test_a_main_that_was_pushed_back_is_red_and_told_once_a_day_and_hides_no_other(
    lines: Any, tmp_path: Path, variables: Variables
) -> None:
    lines(a=1, b=2)
    watch()
    assert TOLD == []
    for name in ("a", "b"):
        with reading(str(tmp_path / name / ".retain/git")) as main:
            assert variables.values[f"retain_head_{name}"] == main.tip
            assert main.push(Change({"checks/test_x.py": b""}, "forward"))
    watch()
    before = push_back(tmp_path / "a")
    for _ in range(3):
        words = rf"a: main was at {before[:10]} .*; where it was meant, delete Airflow's Variable retain_head_a$"
        with pytest.raises(AirflowFailException, match=words):
            watch()
    assert TOLD == ["a: main"]
    said = variables.values["retain_head_a"].replace(str(datetime.now(UTC).year), "2020")
    variables.values["retain_head_a"] = said
    with pytest.raises(AirflowFailException):
        watch()
    assert TOLD == ["a: main", "a: main"]
    del variables.values["retain_head_a"]
    watch()


def test_a_main_that_is_put_back_is_well_again(lines: Any, tmp_path: Path, variables: Variables) -> None:
    lines(a=1)
    watch()
    before = push_back(tmp_path / "a")
    with pytest.raises(AirflowFailException):
        watch()
    git(tmp_path / "a/.retain/git", "update-ref", "refs/heads/main", before)
    watch()
    assert variables.values == {"retain_head_a": before}


def test_a_main_that_nobody_can_read_as_a_ledger_is_told_and_never_tried_again(lines: Any, tmp_path: Path) -> None:
    lines(a=1)
    with reading(str(tmp_path / "a/.retain/git")) as main:
        assert main.push(Change({"versions/v0001.json": b"{"}, "broken"))
    with pytest.raises(AirflowFailException, match="a: versions/v0001"):
        watch()
    assert TOLD == ["a"]


@pytest.mark.usefixtures("player")
@pytest.mark.filterwarnings("default")
def test_airflow_remembers_where_main_was(lines: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole DAG, and Variables of Airflow's own database."""
    monkeypatch.setattr(heads, "Variable", Variable)
    lines(remembered=1)
    assert str(retain_watch.test().state) == "success"
    push_back(tmp_path / "remembered")
    assert str(retain_watch.test().state) == "failed"
    assert TOLD == ["remembered: main"]
