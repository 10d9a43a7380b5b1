"""Each row's choices of its knobs, tried: tasks 1 and 2 of the CPU form, scored on held-out training pictures.

    python -m tests.benchmarks.mnist5.trials --data FOLDER [--rows ...] [--out FOLDER]

prints the FD of each choice, the mean of both nets; the best goes into `settings.yaml` under `chosen`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.benchmarks.mnist5.digits import read_digits
from tests.benchmarks.mnist5.nets import MAKE, open_net
from tests.benchmarks.mnist5.runs import Bench, Run
from tests.benchmarks.mnist5.settings import TASKS, Settings, read_settings

FORM, SEED = "cpu", 1000


def tried(settings: Settings, row: str, bench: Bench, out: Path) -> list[float]:
    """The FD after two tasks by each choice of a row, the mean of the nets."""
    found = []
    for number, choice in enumerate(settings.rows[row].choices):
        *_, last = Run(bench, settings.rows[row], choice, SEED, out / "trials" / row / f"choice-{number}").play()
        found.append(sum(score["fd"] for score in last["scores"].values()) / len(last["scores"]))
    return found


def main() -> None:
    """Try all choices of some rows."""
    settings = read_settings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", choices=settings.rows, default=list(settings.rows))
    parser.add_argument("--out", type=Path, default=Path(".mnist5"))
    given = parser.parse_args()
    form = settings.forms[FORM]
    digits, nets = read_digits(given.data, form.size, given.out), {name: open_net(name, form.size) for name in MAKE}
    bench = Bench(form, digits, nets, TASKS[:2], "held_out")
    for row in given.rows:
        found = tried(settings, row, bench, given.out)
        print(f"{row}: {found.index(min(found))}  # {', '.join(f'{value:.1f}' for value in found)}", flush=True)


if __name__ == "__main__":
    main()
