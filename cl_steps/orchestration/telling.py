"""How Airflow tells of a run: metrics through its StatsD or OpenTelemetry, people through its notifiers."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

from airflow.sdk import BaseNotifier
from airflow.sdk.observability import stats

from cl_steps.documents import Json
from cl_steps.errors import UsageError
from cl_steps.ledger.events import RunEvent
from cl_steps.ledger.fold import Ledger
from cl_steps.orchestration.pods.profiles import Notify
from cl_steps.orchestration.registry import Entry
from cl_steps.repository.mainline import Mainline

LOG = logging.getLogger("retain.telling")
SIZE = re.compile(rb"^ *size: *([0-9]+)", re.MULTILINE)
MD5 = re.compile(rb"md5: *([0-9a-f]{32}(?:\.dir)?)")


def measure(entry: Entry, event: RunEvent, ledger: Ledger, main: Mainline) -> None:
    """Count and gauge a run that ended: `retain.runs`, `retain.run_seconds`, `retain.gpu_seconds`,
    `retain.pending_assets` and `retain.stored_bytes`, each tagged with the line.
    """
    tags = {"line": entry.name}
    stats.incr("retain.runs", tags={**tags, "outcome": event.outcome})
    stats.timing("retain.run_seconds", timedelta(seconds=float(event.seconds)), tags=tags)
    stats.incr("retain.gpu_seconds", round(event.gpu_seconds), tags=tags)
    stats.gauge("retain.pending_assets", pending_assets(ledger, main.max_attempts()), tags=tags)
    stats.gauge("retain.stored_bytes", stored_bytes(main), tags=tags)


def pending_assets(ledger: Ledger, max_attempts: int) -> int:
    """How many assets wait to be learnt."""
    return sum(ledger.intakes[run].assets for run in ledger.pending(max_attempts))


def stored_bytes(main: Mainline) -> int:
    """The bytes on the store that main refers to: its state and every intake, what they share counted once."""
    files = (content for folder in ("state", "data") for content in main.folder_files(folder).values())
    sizes = {m[1]: int(s[1]) for f in files if (m := MD5.search(f)) and (s := SIZE.search(f))}
    return sum(sizes.values())


def tell(entry: Entry, what: str, facts: Json, context: MutableMapping[str, Any]) -> None:
    """Call the line's notifiers for an outcome; templates find `retain` beside Airflow's own names.

    A notifier that fails is logged: nobody's run is the worse for a mail server that is away.
    """
    context["retain"] = {"line": entry.name, **facts}
    for notifier in notifiers(entry, what):
        try:
            notifier(context)
        except Exception:
            LOG.exception("the notifier %s did not work", type(notifier).__name__)


def notifiers(entry: Entry, what: str) -> Iterator[BaseNotifier]:
    """The line's notifiers for an outcome; raises UsageError where one is none."""
    for wish in entry.notify:
        if what in wish.of:
            yield _made(wish)


def _made(wish: Notify) -> BaseNotifier:
    module, _, name = wish.notifier.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
        made = kind(**wish.arguments)
    except Exception as error:
        # Whatever somebody's class does with what somebody wrote: it is this line's mistake.
        raise UsageError(f"lines.yaml: the notifier {wish.notifier} cannot be made: {error}") from error
    if not isinstance(made, BaseNotifier):
        raise UsageError(f"lines.yaml: {wish.notifier} is no notifier of Airflow: name a class that is one")
    return made


def hours_overdue(main: Mainline, entry: Entry, now: datetime | None = None) -> float | None:
    """Hours since the line's last finished run, where that is too long; None where all is well."""
    if entry.overdue_hours is None or entry.cron is None:
        return None
    hours = ((now or datetime.now(UTC)) - main.last_finished()).total_seconds() / 3600
    return hours if hours > entry.overdue_hours else None
