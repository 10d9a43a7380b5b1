"""What the runs say, together: one JSON file a form, a table in Markdown, a plot, and the scoreboard's figures."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cl_steps.documents import Json, write_json
from tests.benchmarks.mnist5.settings import Settings
from tests.benchmarks.scoreboard import Scoreboard

RESULTS = Path(__file__).with_name("results")
NETS = ("plain", "residual")
THEIRS, OURS, DEFAULT, JOINT = "gd_rank1", "data_free", "default", "joint"
EXCESS_GOAL, RATIO_GOAL = "<= 0.5", "<= 1.5"
Z = 1.96
Found = dict[str, dict[str, list[Json]]]
"""By row and seed: what was measured after each task."""


@dataclass(frozen=True)
class Mean:
    """Over seeds: `error` is the standard error, NaN of one seed."""

    value: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Of a figure of each seed."""
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(statistics.fmean(values), error)

    def __str__(self) -> str:
        """With its standard error, where there is one."""
        return f"{self.value:.3g}" + ("" if math.isnan(self.error) else f" ± {self.error:.2g}")

    def ties_with(self, other: Mean) -> bool:
        """Whether the two do not differ at a level of 5 %."""
        return abs(self.value - other.value) <= Z * math.hypot(self.error, other.error)


def gather(out: Path, form: str, settings: Settings, folder: Path) -> Found:
    """What is whole of the runs of a form, with what was gathered before of others; written to `<form>.json`."""
    file = folder / f"{form}.json"
    found: Found = json.loads(file.read_bytes()) if file.exists() else {}
    for row in settings.rows:
        for place in sorted((out / form / row).glob("seed-*")):
            tasks = [json.loads(path.read_bytes()) for path in sorted(place.glob("task-*.json"))]
            if tasks and "fd" in tasks[-1]["scores"][NETS[0]]:
                found.setdefault(row, {})[place.name.removeprefix("seed-")] = tasks
    write_json(file, found)
    return found


def figures(tasks: Sequence[Json]) -> dict[str, float]:
    """Of one row and seed; `forgetting` is the mean rise of a task's FD since it was learnt."""
    last = tasks[-1]
    found: dict[str, float] = {}
    for name in NETS:
        score = last["scores"][name]
        found |= {f"{key} {name}": score[key] for key in ("fd", "kid", "coverage", "accuracy", "kld")}
        since = {word: fd for task in tasks[:-1] for word, fd in task["scores"][name]["tasks"].items()}
        if since:
            rises = [score["tasks"][word] - fd for word, fd in since.items()]
            found[f"forgetting {name}"] = statistics.fmean(rises)
    found["minutes"] = sum(task["cpu_minutes"] for task in tasks)
    return found


def means(found: Found) -> dict[str, dict[str, Mean]]:
    """Each row's figures over its seeds, and with joint's and fine-tuning's of the same seeds.

    `ratio` is a row's FD by joint's; `excess` its FD above joint's, by that of the authors' best row.
    """
    all_figures = {row: {seed: figures(tasks) for seed, tasks in seeds.items()} for row, seeds in found.items()}
    return {row: _means(row, all_figures) for row in found}


def _means(row: str, every: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, Mean]:
    own = every[row]
    rows = {key: Mean.of([seed[key] for seed in own.values()]) for key in next(iter(own.values()))}
    shared = [seed for seed in own if seed in every.get(JOINT, {})]
    both = [seed for seed in shared if seed in every.get(THEIRS, {})]
    for name in NETS:
        fd = f"fd {name}"
        if shared:
            rows[f"ratio {name}"] = Mean.of([own[seed][fd] / every[JOINT][seed][fd] for seed in shared])
        if both:
            ours, theirs = (
                statistics.fmean(every[of][seed][fd] - every[JOINT][seed][fd] for seed in both) for of in (row, THEIRS)
            )
            rows[f"excess {name}"] = Mean(ours / theirs, math.nan)
    return rows


def read_costs(folder: Path, form: str) -> dict[str, float]:
    """A step of each row by a plain one, as far as `cost` has measured it."""
    file = folder / f"{form}-steps.json"
    return dict(json.loads(file.read_bytes())) if file.exists() else {}


COLUMNS = {
    "FD": "fd", "FD / joint": "ratio", "excess / theirs": "excess", "KID": "kid", "coverage": "coverage",
    "accuracy": "accuracy", "KLD": "kld", "forgetting": "forgetting",
}  # fmt: skip


def table(found: Found, settings: Settings, costs: Mapping[str, float]) -> Iterator[str]:
    """Lines of Markdown, the best row first."""
    rows = means(found)
    order = sorted(rows, key=lambda row: rows[row][f"fd {NETS[0]}"].value)
    yield f"| place | row | seeds | {' | '.join(COLUMNS)} | step | CPU minutes |"
    yield "|" + "---|" * (len(COLUMNS) + 5)
    for place, row in enumerate(order, 1):
        own, beside = rows[row], [rows[other] for other in order[max(0, place - 2) : place + 1] if other != row]
        tie = _tie(own, beside)
        cells = (" / ".join(str(own.get(f"{key} {name}", "-")) for name in NETS) for key in COLUMNS.values())
        step = f"{costs[row]:.2f}" if row in costs else "-"
        yield (
            f"| {place}{tie} | {settings.rows[row].words} | {len(found[row])} | {' | '.join(cells)} | {step} | "
            f"{own['minutes'].value:.1f} |"
        )


def _tie(own: Mapping[str, Mean], beside: Sequence[Mapping[str, Mean]]) -> str:
    """Whether a row ties with one beside it; `?` where it has one seed, so that nobody knows."""
    fd = f"fd {NETS[0]}"
    if math.isnan(own[fd].error):
        return "?"
    return "=" if any(own[fd].ties_with(other[fd]) for other in beside) else ""


def plot(found: Found, settings: Settings, file: Path) -> None:
    """The FD of each row on both nets, its standard error, and each seed as a dot."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = means(found)
    order = sorted(rows, key=lambda row: -rows[row][f"fd {NETS[0]}"].value)
    with rc_context({"svg.hashsalt": "retain"}):
        figure = Figure(figsize=(10, 1 + 0.36 * len(order)), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(NETS), sharey=True), NETS, strict=True):
            values = [rows[row][f"fd {name}"] for row in order]
            errors = [0.0 if math.isnan(mean.error) else mean.error for mean in values]
            axes.barh([settings.rows[row].words for row in order], [mean.value for mean in values], xerr=errors)
            for place, row in enumerate(order):
                seeds = [figures(tasks)[f"fd {name}"] for tasks in found[row].values()]
                axes.plot(seeds, [place] * len(seeds), "k.", markersize=4)
            axes.set_xscale("log")
            axes.set_title(f"FD after the last task, {name} net")
        figure.savefig(file, metadata={"Date": None, "Creator": None})


def record(found: Found, form: str, settings: Settings, board: Scoreboard) -> None:
    """Enter the figures; goals are those of rows that have one."""
    for row, own in means(found).items():
        name, seeds = f"learning/five tasks of digits, {settings.rows[row].words}", sorted(map(int, found[row]))
        for key in NETS:
            goals = {"fd": None, "ratio": RATIO_GOAL if row == DEFAULT else None}
            goals |= {"excess": EXCESS_GOAL if row == OURS else None}
            words = {"fd": "FD", "ratio": "FD / joint's", "excess": f"excess FD / {THEIRS}'s"}
            for figure, goal in goals.items():
                if (mean := own.get(f"{figure} {key}")) and (goal or figure == "fd"):
                    board.record(
                        f"{name}: {words[figure]}", mean.value, goal=goal, form=f"{form}, {key} net", seeds=seeds
                    )


def show(out: Path, form: str, settings: Settings, board: Scoreboard, folder: Path) -> str:
    """Gather, enter, draw; returns the table, which lies in `<form>.md`."""
    found = gather(out, form, settings, folder)
    if not found:
        return "nothing is whole yet"
    text = "\n".join(table(found, settings, read_costs(folder, form))) + "\n"
    (folder / f"{form}.md").write_text(text, encoding="utf-8")
    plot(found, settings, folder / f"{form}.svg")
    record(found, form, settings, board)
    return text
