"""What a step of each row costs beside a plain one, in turns, so that a busy machine slows all alike.

    python -m tests.benchmarks.mnist5.cost --data FOLDER [--form cpu] [--rounds 20]

A step of the second task; given is the median over the rounds of the CPU seconds by those of fine-tuning's in the same
round. It goes into `results/<form>-steps.json`, from where the table has it, and the scoreboard.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from cl_steps.documents import write_json
from cl_steps.learning.learner import Learner
from tests.benchmarks.mnist5.digits import read_digits
from tests.benchmarks.mnist5.runs import Bench, Run
from tests.benchmarks.mnist5.settings import Settings, read_settings
from tests.benchmarks.mnist5.table import OURS, RESULTS, read_costs
from tests.benchmarks.scoreboard import Scoreboard, busy, this_machine

PLAIN, GOAL, WARM = "finetune", "<= 1.05", 3
LEAST_DRAWS = 2
"""Of a Fisher, whose making is no step."""


def costs(bench: Bench, settings: Settings, rows: Sequence[str], rounds: int) -> dict[str, float]:
    """A step of each row by one of fine-tuning."""
    learners = {row: at_second_task(bench, settings, row) for row in dict.fromkeys([PLAIN, *rows])}
    took: dict[str, list[float]] = {row: [] for row in learners}
    for _ in range(WARM + rounds):
        for row, learner in learners.items():
            began = time.process_time()
            learner.advance()
            took[row].append(time.process_time() - began)
    pairs = {row: zip(own[WARM:], took[PLAIN][WARM:], strict=True) for row, own in took.items()}
    return {row: round(statistics.median(one / plain for one, plain in both), 3) for row, both in pairs.items()}


def at_second_task(bench: Bench, settings: Settings, row: str) -> Learner:
    """A learner that has been given the first task and has not learnt it."""
    run = Run(bench, settings.rows[row], settings.choice(row), 0, Path())
    run.begin()
    first = run.learner(0)
    if len(run.tasks) == 1:
        return first
    run.kept = run.methods().keep(first, first.new, {})
    return run.learner(1)


def main() -> None:
    """Measure, enter and print."""
    settings = read_settings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--form", choices=settings.forms, default="cpu")
    parser.add_argument("--rows", nargs="+", choices=settings.rows, default=list(settings.rows))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(".mnist5"))
    given = parser.parse_args()
    form = settings.forms[given.form].model_copy(update={"fisher_draws": LEAST_DRAWS})
    bench = Bench(form, read_digits(given.data, form.size, given.out), {})
    found = costs(bench, settings, given.rows, given.rounds)
    write_json(RESULTS / f"{given.form}-steps.json", {**read_costs(RESULTS, given.form), **found})
    command = f"python -m tests.benchmarks.mnist5.cost --data FOLDER --form {given.form}"
    board = Scoreboard(command, this_machine(), busy())
    for row, ratio in found.items():
        name = f"learning/five tasks of digits, {settings.rows[row].words}: a step / a plain one"
        board.record(name, ratio, goal=GOAL if row == OURS else None, form=f"{given.form}, CPU s")
        print(f"{row}: {ratio:.2f}")


if __name__ == "__main__":
    main()
