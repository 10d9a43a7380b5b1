"""`lines.yaml`: which lines this Airflow keeps up to date, and when."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import Field, StringConstraints, field_validator

from cl_steps.config import Block, validate_block
from cl_steps.errors import UsageError
from cl_steps.workspace.line import Line, resolve

PRESETS = ("@hourly", "@daily", "@weekly", "@monthly")
CRON = re.compile(r"[0-9A-Za-z*/,#-]+( [0-9A-Za-z*/,#-]+){4}")
ENVIRONMENT_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"


class Entry(Block):
    """One line: where its workspace is, when its runs begin, and what its steps may see of the environment."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")]
    workspace: Annotated[str, Field(min_length=1)]
    schedule: str | None = "@daily"
    timezone: str = "UTC"
    start: date = date(2024, 1, 1)
    store: str = ""
    work: str = ""
    landing: str = ""
    environment: tuple[Annotated[str, StringConstraints(pattern=ENVIRONMENT_NAME)], ...] = ()
    retries: Annotated[int, Field(ge=0)] = 2
    retry_seconds: Annotated[float, Field(ge=0)] = 30.0
    step_hours: Annotated[float, Field(gt=0)] = 24.0
    page: bool = True

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, value: str | None) -> str | None:
        if value is not None and value not in PRESETS and not CRON.fullmatch(value):
            raise ValueError(f"a schedule is {', '.join(PRESETS)}, five cron fields, or null (by hand only)")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("a timezone is a name such as Europe/Berlin") from error
        return value

    @property
    def dag_id(self) -> str:
        """What Airflow calls the line."""
        return f"retain_{self.name}"

    @property
    def settings(self) -> Mapping[str, str]:
        """How a step's process finds the line's places, where `lines.yaml` names them."""
        found = {"RETAIN_STORE_URL": self.store, "RETAIN_WORK": self.work, "RETAIN_LANDING": self.landing}
        return {name: value for name, value in found.items() if value}

    def line(self) -> Line:
        """The line's places, now; raises UsageError where the workspace is none."""
        if self.store:
            return Line(self.workspace, self.store, self.work, self.landing)
        return resolve(self.workspace)


def lines_file() -> Path:
    """`$RETAIN_LINES`, or `lines.yaml` beside the folder of the DAGs."""
    given = os.environ.get("RETAIN_LINES")
    return Path(given) if given else Path(__file__).resolve().parents[1] / "lines.yaml"


def read_lines(path: Path) -> tuple[Entry, ...]:
    """The lines of a `lines.yaml`; none where there is no such file and nobody named one.

    Raises:
        UsageError: no such file as `RETAIN_LINES` names, no YAML, an unknown key, a wrong value, a name used twice.
    """
    if not path.is_file():
        if os.environ.get("RETAIN_LINES"):
            raise UsageError(f"RETAIN_LINES names {path}, which is not there: write it, or unset RETAIN_LINES")
        return ()
    entries = tuple(_entry(values, number) for number, values in enumerate(_items(path), start=1))
    names = [entry.name for entry in entries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"lines.yaml has two lines named {twice!r}: a line's name is its DAG's: give each its own")
    return entries


def _items(path: Path) -> list[Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid YAML: mend it and Airflow reads it again by itself") from error
    if not isinstance(document, dict) or list(document) != ["lines"] or not isinstance(document["lines"], list):
        raise UsageError(f"{path} must hold one key, `lines`, with a list of entries that have a name and a workspace")
    return document["lines"]


def _entry(values: Any, number: int) -> Entry:
    where = f"lines.yaml (entry {number})"
    if not isinstance(values, dict):
        raise UsageError(f"{where} must hold keys and values, for example `name: my-line`")
    return validate_block(Entry, values, where)
