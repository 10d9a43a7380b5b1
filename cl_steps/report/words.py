"""How the page says things: statuses as pills, numbers, moments; small tables."""

from __future__ import annotations

from dataclasses import dataclass

from cl_steps.report.overview import Report, number, text

TONES = {
    "promote": "good",
    "promoted": "good",
    "ok": "good",
    "pass": "good",
    "yes": "good",
    "quiet": "calm",
    "no_update": "calm",
    "skipped": "calm",
    "stale": "calm",
    "too_few": "calm",
    "done": "calm",
    "drifted": "info",
    "running": "info",
    "inconclusive": "warn",
    "held": "warn",
    "alarming": "bad",
    "reject": "bad",
    "rejected": "bad",
    "failed": "bad",
    "fail": "bad",
    "no": "bad",
}
DASH = "–"


@dataclass(frozen=True)
class Pill:
    """A status: a word and the tone of its colour."""

    word: str
    tone: str


@dataclass(frozen=True)
class Grid:
    """A small table: headings and rows of cells; a cell is text or a pill."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str | Pill, ...], ...]
    numeric: tuple[int, ...] = ()


def pill(word: str) -> Pill:
    """A verdict or outcome as a pill."""
    return Pill(word.replace("_", " "), TONES.get(word, "calm"))


def whole(value: object) -> str:
    """A count with its thousands apart, or a dash."""
    found = number(value)
    return DASH if found is None else f"{found:,.0f}".replace(",", "\u202f")


def moment(value: object) -> str:
    """A moment to the minute, or a dash."""
    return text(value)[:16].replace("T", " ") or DASH


def seconds(value: object) -> str:
    """A duration, or a dash."""
    found = number(value)
    return DASH if found is None else f"{found:.0f} s" if found < 600 else f"{found / 60:.0f} min"


def started_by(trigger: Report, rebase: bool = False) -> str:
    """Who or what started a run, whether to put a new base under the line, and why."""
    words = ["a new base" if rebase else text(trigger.get("kind")) or "unknown"]
    if trigger.get("by"):
        words.append(f"by {text(trigger.get('by'))}")
    if trigger.get("force"):
        words.append("forced")
    if trigger.get("reason"):
        words.append(f"“{text(trigger.get('reason'))}”")
    return ", ".join(words)


def answer_words(answer: Report | None) -> str:
    """What a person said to a held run; empty where nobody did."""
    if answer is None:
        return ""
    said = "approved" if answer.get("answer") == "yes" else "refused"
    return f"{said} by {text(answer.get('by'))} on {moment(answer.get('at'))}: “{text(answer.get('reason'))}”"
