"""Two nights at work at once on one landing: what both took in is counted once."""

from __future__ import annotations

from pathlib import Path

import pytest

from cl_steps.commands.status import status
from cl_steps.ledger.fold import Ledger
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from cl_steps.repository.run_branch import read_run
from cl_steps.steps import close
from cl_steps.steps.overlap import taken_before
from tests.lines.playing import begin, finish, line_after, make_line


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return line_after(tmp_path / "line", 0)


def ledger(line: Line) -> Ledger:
    with reading(line.git) as main:
        return main.ledger()


def taken_in(line: Line) -> dict[str, int]:
    return {run: intake.assets for run, intake in ledger(line).intakes.items()}


def test_two_quiet_nights_at_once_count_nothing_twice(line: Line) -> None:
    quiet = {"drift": "quiet"}
    begin(line, "r-1", range(20, 32), quiet)
    begin(line, "r-2", range(26, 40), quiet)
    for run in ("r-1", "r-2"):
        assert close.run(line, run) == "no_update"
    assert taken_in(line) == {"r-1": 12, "r-2": 8}
    found = status(str(Path(line.git).parents[1]), json=True)
    assert isinstance(found, dict)
    assert (found["taken_in"], found["pending"]["assets"]) == (20, 20)
    events = ledger(line).runs
    assert [event.intake.again for event in events.values() if event.intake] == [0, 6]
    assert [event.intake.assets for event in events.values() if event.intake] == [12, 14]


def test_a_promotion_beside_a_quiet_night_counts_nothing_twice(line: Line) -> None:
    begin(line, "r-1", range(20, 32), {"drift": "quiet"})
    begin(line, "r-2", None)
    assert close.run(line, "r-1") == "no_update"
    assert finish(line, "r-2") == "v2"
    assert taken_in(line) == {"r-1": 12, "r-2": 0}


def test_one_after_the_other_nobody_reads_the_store(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(line, "r-1", range(20, 32), {"drift": "quiet"})
    monkeypatch.setattr("cl_steps.data.manifests.reading_store", lambda *_: pytest.fail("nothing is to be read"))
    assert close.run(line, "r-1") == "no_update"


def test_a_run_that_took_in_nothing_took_in_nothing_again(tmp_path: Path) -> None:
    made = make_line(tmp_path / "other")
    begin(made, "r-1", (), until="ingest")
    with reading(made.git) as main:
        assert taken_before(main, made, read_run(made, "r-1"), main.tip) == 0
