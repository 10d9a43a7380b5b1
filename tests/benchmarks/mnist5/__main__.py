"""The benchmark's command: rows and seeds that are not done yet, or with `--table` what is known of all."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cl_steps.errors import RetainError, UsageError
from tests.benchmarks.mnist5.digits import read_digits
from tests.benchmarks.mnist5.nets import MAKE, open_net
from tests.benchmarks.mnist5.runs import Bench, Run
from tests.benchmarks.mnist5.settings import Settings, read_settings
from tests.benchmarks.mnist5.table import RESULTS, show
from tests.benchmarks.scoreboard import RESULTS as BOARD
from tests.benchmarks.scoreboard import Scoreboard, this_machine


def arguments(settings: Settings, given: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.mnist5", description=__doc__)
    parser.add_argument("--data", type=Path, help="the folder with mnist/train.parquet and mnist/test.parquet")
    parser.add_argument("--form", choices=settings.forms, default="cpu")
    parser.add_argument("--rows", nargs="+", choices=settings.rows, default=list(settings.rows))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path(".mnist5"), help="where runs are kept, and go on from")
    parser.add_argument("--table", action="store_true", help="only gather, enter and show what is whole")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table and its figures go")
    parser.add_argument("--board", type=Path, default=BOARD, help="the scoreboard's file")
    return parser.parse_args(given)


def play(settings: Settings, given: argparse.Namespace) -> None:
    """Every row and seed; a line for each that is done.

    Raises:
        UsageError: no data is named.
        NoUsableData, IntegrityError: as `read_digits` and `open_net`.
    """
    if given.data is None:
        raise UsageError("the pictures of digits are needed: name their folder with --data")
    form = settings.forms[given.form]
    nets = {name: open_net(name, form.size) for name in MAKE}
    bench = Bench(form, read_digits(given.data, form.size, given.out), nets)
    for seed in given.seeds:
        for row in given.rows:
            place = given.out / given.form / row / f"seed-{seed}"
            *_, last = Run(bench, settings.rows[row], settings.choice(row), seed, place).play()
            distances = ", ".join(f"{name} {score['fd']:.1f}" for name, score in last["scores"].items())
            print(f"{row}, seed {seed}: FD {distances}", flush=True)


def main(given: Sequence[str] | None = None) -> int:
    """0, or the exit code of what is wrong."""
    settings = read_settings()
    asked = arguments(settings, given)
    try:
        if not asked.table:
            play(settings, asked)
        command = f"python -m tests.benchmarks.mnist5 --data FOLDER --form {asked.form}"
        board = Scoreboard(command, this_machine(), file=asked.board)
        print(show(asked.out, asked.form, settings, board, asked.results))
    except RetainError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
