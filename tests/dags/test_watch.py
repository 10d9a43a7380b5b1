"""The watch over all lines: it is red where a line has had no finished run, and tells its people, not every hour."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from cl_steps.workspace.mainline import Change, reading
from dags.watch import watch
from tests.dags.conftest import make_line
from tests.dags.test_telling import HERE, TOLD


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write lines.yaml for lines whose last run finished so many hours ago."""
    TOLD.clear()
    monkeypatch.setenv("RETAIN_LINES", str(tmp_path / "lines.yaml"))

    def written(**hours: float) -> None:
        notify = [{"of": ["overdue"], "notifier": f"{HERE}.Pigeon", "arguments": {"text": "{{ retain.line }}"}}]
        entries = []
        for name, ago in hours.items():
            (tmp_path / name).mkdir()
            record = {"version": "v1", "created": (datetime.now(UTC) - timedelta(hours=ago)).isoformat()}
            with reading(make_line(tmp_path / name).git) as main:
                assert main.push(Change({"versions/v0001.json": json.dumps(record).encode()}, "v1"))
            entries.append({"name": name, "workspace": str(tmp_path / name), "notify": notify})
        (tmp_path / "lines.yaml").write_text(yaml.safe_dump({"lines": entries}), encoding="utf-8")

    return written


def test_all_is_well(lines: Any) -> None:
    lines(a=1, b=25)
    watch()
    assert TOLD == []


def test_lines_without_a_finished_run_are_named_and_their_people_told_once_a_day(lines: Any) -> None:
    lines(a=26.2, b=3, c=40, d=26.2 + 24)
    with pytest.raises(AirflowFailException, match=r"a for 26 hours, c for 40 hours, d for 50 hours"):
        watch()
    assert TOLD == ["a", "d"]


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
