"""The benchmarks of this folder measure and enter what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from cl_steps.config import Lora
from tests.benchmarks.run import Clock
from tests.benchmarks.scoreboard import Scoreboard, read
from tests.benchmarks.step import ALPHA, RANK, TARGETS, WAYS, measure


@pytest.fixture
def board(tmp_path: Path) -> Scoreboard:
    return Scoreboard("python it.py", "2 cores", commit="abc", file=tmp_path / "results.json")


def test_a_clock_enters_the_cpu_seconds_of_what_runs_within_it(board: Scoreboard) -> None:
    with Clock(board)("night/counting", form="slowly"):
        sum(range(100_000))
    (entry,) = read(board.file)
    assert (entry.name, entry.unit, entry.form) == ("night/counting", "CPU s", "slowly")
    assert 0 < entry.value < 10


def test_of_many_it_enters_how_many_a_second(board: Scoreboard) -> None:
    with Clock(board)("ingest/counting", 1000, "numbers"):
        sum(range(100_000))
    (entry,) = read(board.file)
    assert entry.unit == "numbers / CPU s"
    assert entry.value > 100


@pytest.mark.parametrize("way", WAYS)
def test_a_step_of_each_way_learns_the_demos_model(way: str) -> None:
    lora = Lora(rank=RANK, alpha=ALPHA, target_modules=TARGETS["attention"])
    step = WAYS[way]("1", lora, 2, 1)
    row = measure({"diffusers": step}, 1)["diffusers"]
    assert row["cpu"] > 0
    assert row["kept"] > 2**20
    assert row["ratio"] == 1
