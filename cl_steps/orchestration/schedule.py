"""When a line's nights begin: five cron fields, spread over the hour so that a hundred lines do not start at once."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

PRESETS = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}
CRON = re.compile(r"[0-9A-Za-z*/,#-]+( [0-9A-Za-z*/,#-]+){4}")
BY_CHANCE = re.compile(r"(^| )[RrHh](/|$| )")
"""croniter's fields that a random number or a hash fills in: another one each time that Airflow reads them."""
MINUTES_OF_DAY = 24 * 60


def check(schedule: str) -> None:
    """Raise ValueError for a schedule that Airflow cannot read, or that never comes (`0 2 31 2 *`).

    Airflow itself only logs such a schedule, shows no error, and never begins a run.
    """
    from croniter import CroniterError, croniter

    if schedule in PRESETS:
        return
    if not CRON.fullmatch(schedule) or BY_CHANCE.search(schedule):
        raise ValueError(f"a schedule is {', '.join(PRESETS)}, five cron fields, or null (by hand only)")
    try:
        croniter(schedule, datetime.now(UTC)).get_next(datetime)
    except CroniterError as error:
        raise ValueError(
            f"there is no such time ({error}): five cron fields are minute 0-59, hour 0-23, day 1-31, month and weekday"
        ) from error


def spread(schedule: str, minutes: int, name: str) -> str:
    """`schedule` later by a fixed number of minutes below `minutes`, by the line's name.

    Raises:
        ValueError: the schedule has no fixed minute, or would begin on the next day.
    """
    cron = PRESETS.get(schedule, schedule)
    if not minutes:
        return cron
    minute, hour, *rest = cron.split()
    later = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % minutes
    if not minute.isdigit() or (not hour.isdigit() and int(minute) + minutes > 60):
        raise ValueError("jitter_minutes needs a schedule with a fixed minute (and hour, where it crosses it)")
    if not hour.isdigit():
        return " ".join((str(int(minute) + later), hour, *rest))
    start = 60 * int(hour) + int(minute)
    if start + minutes > MINUTES_OF_DAY:
        raise ValueError("jitter_minutes would carry a night into the next day: begin earlier or spread less")
    return " ".join((str((start + later) % 60), str((start + later) // 60), *rest))


def next_start(cron: str, timezone: str, after: datetime) -> datetime:
    """The first night after a moment."""
    from croniter import croniter

    return croniter(cron, after.astimezone(ZoneInfo(timezone))).get_next(datetime)  # type: ignore[no-any-return]
