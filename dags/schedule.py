"""When a line's nights begin: five cron fields, spread over the hour so that a hundred lines do not start at once."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from zoneinfo import ZoneInfo

PRESETS = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}
CRON = re.compile(r"[0-9A-Za-z*/,#-]+( [0-9A-Za-z*/,#-]+){4}")
MINUTES_OF_DAY = 24 * 60


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
