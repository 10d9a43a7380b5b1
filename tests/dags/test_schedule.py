"""When nights begin: spread, but the same for a line every day."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dags.schedule import next_start, spread


def test_without_jitter_a_preset_is_its_five_fields() -> None:
    assert spread("@weekly", 0, "a") == "0 0 * * 0"
    assert spread("*/7 3 * * 1-5", 0, "a") == "*/7 3 * * 1-5"


def test_jitter_stays_within_its_minutes_is_fixed_by_the_name_and_spreads() -> None:
    starts = [spread("50 2 * * *", 90, f"line-{number}").split() for number in range(200)]
    minutes = [60 * int(hour) + int(minute) - 170 for minute, hour, *_ in starts]
    assert min(minutes) >= 0
    assert max(minutes) < 90
    assert len(set(minutes)) > 70
    assert spread("50 2 * * *", 90, "line-7").split() == starts[7]
    assert {rest for _, _, *tail in starts for rest in tail} == {"*"}


def test_an_hourly_line_moves_within_its_hour() -> None:
    minutes = {int(spread("@hourly", 60, f"line-{number}").split()[0]) for number in range(100)}
    assert len(minutes) > 30
    assert all(0 <= minute < 60 for minute in minutes)


@pytest.mark.parametrize("schedule", ["*/5 * * * *", "*/5 2 * * *", "30 * * * *"])
def test_what_has_no_fixed_start_cannot_be_spread(schedule: str) -> None:
    with pytest.raises(ValueError, match="fixed minute"):
        spread(schedule, 40, "a")


def test_a_night_stays_on_its_day() -> None:
    with pytest.raises(ValueError, match="next day"):
        spread("40 23 * * *", 30, "a")


def test_the_next_start_is_that_of_the_lines_own_clock() -> None:
    now = datetime(2026, 7, 1, 1, 0, tzinfo=UTC)
    assert next_start("30 2 * * *", "Europe/Berlin", now) == datetime(2026, 7, 2, 0, 30, tzinfo=UTC)
    assert next_start("30 4 * * *", "Europe/Berlin", now) == datetime(2026, 7, 1, 2, 30, tzinfo=UTC)
