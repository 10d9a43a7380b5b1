"""The nights of a line as a short table for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cl_steps.report.overview import Night, Overview, new_slices, number, scores

HEADINGS = ("night", "drift", "gate", "ended", "version", "old slices", "new slices", "seconds")
NONE = "-"


def nights_table(overview: Overview) -> str:
    """One line a night, oldest first.

    Scores are means over slices, champion -> candidate: of the prompt fidelity (higher is better), or, where the line
    has none, of the denoising loss (lower is better).
    """
    lines = [HEADINGS, *(_row(night) for night in overview.nights)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join(_padded(line, widths) for line in lines)


def score_change(night: Night, *, new: bool) -> tuple[str, float | None, float] | None:
    """(metric, champion's mean, candidate's mean) over the old or the new slices; None where nothing was measured."""
    fresh = new_slices(night)
    found = [(metric, models) for name, metric, models in scores(night) if (name in fresh) == new]
    for wanted in ("fidelity", "loss"):
        models = [values for metric, values in found if metric == wanted and "candidate" in values]
        if models:
            before = [values["champion"] for values in models if "champion" in values]
            return wanted, _mean(before), sum(values["candidate"] for values in models) / len(models)
    return None


def _row(night: Night) -> tuple[str, ...]:
    seconds = number(night.event.get("seconds"))
    return (
        night.run,
        night.verdict("drift") or NONE,
        night.verdict("gate") or NONE,
        night.outcome,
        night.version or NONE,
        _change(score_change(night, new=False)),
        _change(score_change(night, new=True)),
        NONE if seconds is None else f"{seconds:.0f}",
    )


def _change(change: tuple[str, float | None, float] | None) -> str:
    if change is None:
        return NONE
    _, before, after = change
    return f"{after:.3f}" if before is None else f"{before:.3f} -> {after:.3f}"


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _padded(cells: Iterable[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
