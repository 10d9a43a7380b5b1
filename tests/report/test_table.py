"""The table of a terminal."""

from __future__ import annotations

from cl_steps.report.overview import Night, Overview, number, text
from cl_steps.report.table import nights_table, score_change


def test_the_table_says_how_every_night_went(overview: Overview) -> None:
    lines = nights_table(overview).splitlines()
    assert lines[0].split() == [
        "night",
        "drift",
        "gate",
        "ended",
        "version",
        "old",
        "slices",
        "new",
        "slices",
        "seconds",
    ]
    assert lines[1].split() == ["2026-11-01-a1b20001", "quiet", "-", "no_update", "-", "-", "-", "21"]
    assert lines[3].split()[1:5] == ["drifted", "promote", "promoted", "v3"]
    assert "0.250 -> 0.870" in lines[3]
    assert len({len(line) for line in lines[:1]}) == 1


def test_old_and_new_slices_are_told_apart(overview: Overview) -> None:
    metric, before, after = score_change(overview.nights[2], new=True) or ("", None, 0.0)
    assert (metric, before, after) == ("fidelity", 0.25, 0.87)
    assert score_change(overview.nights[4], new=True) is None


def test_hostile_verdicts_cannot_move_the_cursor() -> None:
    night = Night({"run": "r\x1b[2J", "outcome": "held\n\x07"})
    table = nights_table(Overview("line", "v1", (), (night,)))
    assert not {"\x1b", "\x07"} & set(table)
    assert len(table.splitlines()) == 2


def test_values_of_other_types_are_none() -> None:
    assert [number(value) for value in (1, 2.5, True, "3", None, float("nan"), float("inf"))] == [1.0, 2.5] + [None] * 5
    assert [text(value) for value in (None, 3, "a\u202eb")] == ["", "3", "a b"]
