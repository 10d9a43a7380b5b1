"""Where each line's main was when `retain_watch` looked last: Airflow's Variable `retain_head_<line>`, one a line.

It must outlive the worker, and nobody who may push to a line's Git may write it. Airflow's database is both, and is
there already; a file in Airflow's home is gone with the pod of its scheduler. A Variable can be seen and deleted in
Airflow's pages, which is how a person says that an older main was meant (a restored backup).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import Variable

from cl_steps.errors import IntegrityError
from cl_steps.repository.heads import refuse_older
from cl_steps.repository.mainline import Mainline

AGAIN = timedelta(hours=24)
ABOUT = "where retain_watch saw main last, and when people were told that an older one was pushed"


def check_head(main: Mainline, line: str) -> None:
    """Remember where main is; raises IntegrityError where it does not hold what it held before."""
    seen, told = _read(line)
    try:
        refuse_older(main, seen)
    except IntegrityError as error:
        raise IntegrityError(f"{error}; where it was meant, delete Airflow's Variable {_name(line)}") from error
    if told or seen != main.tip:
        Variable.set(_name(line), main.tip, ABOUT)


def is_to_tell(line: str) -> bool:
    """Whether people are told now that a line is not what it was: at once, and then once a day; it is remembered."""
    seen, told = _read(line)
    now = datetime.now(UTC)
    if told and now - datetime.fromisoformat(told) < AGAIN:
        return False
    Variable.set(_name(line), f"{seen} {now.isoformat(timespec='seconds')}", ABOUT)
    return True


def _name(line: str) -> str:
    return f"retain_head_{line}"


def _read(line: str) -> tuple[str, str]:
    """The commit of main, and when people were told; each empty where it is not so."""
    seen, _, told = str(Variable.get(_name(line), default="")).partition(" ")
    return seen, told
