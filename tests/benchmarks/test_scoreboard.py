"""The scoreboard says what was measured: one entry a figure, judged by its goal; the README's table is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cl_steps.errors import UsageError
from tests.benchmarks.scoreboard import README, RESULTS, Scoreboard, reaches, read, table, written


@pytest.fixture
def board(tmp_path: Path) -> Scoreboard:
    return Scoreboard("python it.py", "2 cores", commit="abc", file=tmp_path / "results.json")


def test_the_readmes_table_is_that_of_the_results() -> None:
    readme = README.read_text(encoding="utf-8")
    assert written(readme, read(RESULTS)) == readme


@pytest.mark.parametrize(
    ("value", "goal", "holds"),
    [(1.2, "<= 1.2", True), (1.21, "<= 1.2", False), (1.5, ">= 1.5", True), (1.49, ">= 1.5", False), (1, None, None)],
)
def test_a_goal_says_its_direction(value: float, goal: str | None, holds: bool | None) -> None:
    assert reaches(value, goal) is holds


def test_a_figure_measured_again_takes_the_place_of_the_one_before(board: Scoreboard) -> None:
    board.record("models/a step", 2.0, "s", goal="<= 1", form="float32")
    board.record("models/a step", 0.5, "s", goal="<= 1", form="float32", seeds=(0, 1))
    (entry,) = read(board.file)
    assert (entry.value, entry.holds, entry.seeds, entry.command, entry.commit) == (
        0.5,
        True,
        (0, 1),
        "python it.py",
        "abc",
    )


def test_figures_of_another_form_or_device_stay_beside_each_other_sorted(board: Scoreboard, tmp_path: Path) -> None:
    board.record("night/one", 1.0)
    board.record("models/one", 1.0, form="bfloat16")
    board.record("models/one", 1.0, form="float32")
    Scoreboard("x", "a GPU", commit="abc", file=board.file).record("models/one", 1.0, form="float32")
    found = [(entry.name, entry.form, entry.device) for entry in read(board.file)]
    assert found == [
        ("models/one", "bfloat16", "2 cores"),
        ("models/one", "float32", "2 cores"),
        ("models/one", "float32", "a GPU"),
        ("night/one", "", "2 cores"),
    ]


@pytest.mark.parametrize(
    "wrong",
    [{"name": "speed/one"}, {"name": "models"}, {"goal": "< 1"}, {"value": float("nan")}, {"form": "a | b"}],
    ids=str,
)
def test_what_is_no_figure_is_refused_in_a_sentence(board: Scoreboard, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"is no figure of the scoreboard|has the goal"):
        board.record(**{"name": "models/one", "value": 1.0} | wrong)
    assert not board.file.exists()


@pytest.mark.parametrize("changed", [{"value": 3.0}, {"holds": None}, {"group": "models"}], ids=str)
def test_results_that_were_changed_by_hand_are_refused(board: Scoreboard, changed: dict[str, Any]) -> None:
    board.record("models/one", 1.0, goal="<= 2")
    (entry,) = json.loads(board.file.read_text())
    board.file.write_text(json.dumps([entry | changed]))
    with pytest.raises(UsageError, match=r"results\.json is not as `record` writes it"):
        read(board.file)


def test_an_entry_that_stands_twice_is_refused(board: Scoreboard) -> None:
    board.record("models/one", 1.0)
    board.file.write_text(json.dumps(json.loads(board.file.read_text()) * 2))
    with pytest.raises(UsageError, match="each entry once"):
        read(board.file)


def test_the_table_says_what_holds_and_what_does_not(board: Scoreboard) -> None:
    board.record("models/one", 1234.5, "steps", goal=">= 1000")
    board.record("models/two", 0.5, "steps", goal=">= 1000")
    board.record("models/three", 0.5, "steps")
    lines = list(table(read(board.file)))
    assert "| models/one | >= 1000 | 1,234 steps | yes |  | 2 cores | abc |" in lines
    assert any(line.startswith("| models/two |") and "| **no** |" in line for line in lines)
    assert "| models/three | 0.5 steps |  | 2 cores | abc |" in lines
