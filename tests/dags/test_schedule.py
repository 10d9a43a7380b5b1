"""When nights begin: spread, but the same for a line every day."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cl_steps.orchestration.schedule import check, next_start, spread


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


@pytest.mark.parametrize(
    "schedule",
    [
        "99 2 * * *", "0 25 * * *", "0 2 31 2 *", "0 2 30 2 *", "0 2 31 4,6 *", "0 2 0 * *", "0 2 1-40 * *",
        "0 2 * 13 *", "0 2 * * 8", "MON 2 * * *", "0 JAN * * *", "0 2 MON * *", "0 2 * MON *", "0 2 * * JAN",
        "0 2 * * MONDAY", "0 2 */0 * *", "0 2 * * *,", "0 2 * * 1#6", "* * 31 2 1#5", "0 2 * * 1-",
    ],
)  # fmt: skip
def test_a_time_that_never_comes_is_refused(schedule: str) -> None:
    with pytest.raises(ValueError, match="there is no such time"):
        check(schedule)


@pytest.mark.parametrize(
    "schedule",
    ["daily", "@yearly", "0 2 * *", "0 2 * * * *", "0  2 * * *", "", "R 2 * * *", "0 r/2 * * *", "H 2 * * *"],
)
def test_what_is_no_schedule_or_another_one_each_time_is_refused(schedule: str) -> None:
    with pytest.raises(ValueError, match="five cron fields"):
        check(schedule)


@pytest.mark.parametrize(
    "schedule",
    ["@daily", "0 2 * * *", "*/7 3 * * 1-5", "0 2 29 2 *", "0 2 31 2 MON", "0 2 * JAN-MAR mon,FRI", "0 2 L * *",
     "0 2 * * sat#1", "0 2 * * 7"],
)  # fmt: skip
def test_what_airflow_runs_is_taken_and_really_comes(schedule: str) -> None:
    from airflow.timetables.base import TimeRestriction
    from airflow.timetables.trigger import CronTriggerTimetable

    check(schedule)
    timetable = CronTriggerTimetable(spread(schedule, 0, "a"), timezone="Europe/Berlin")
    restriction = TimeRestriction(earliest=None, latest=None, catchup=False)
    assert timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction)
