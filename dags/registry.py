"""`lines.yaml`: which lines this Airflow keeps up to date, when, and by which compute profile."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, Strict, StringConstraints, ValidationInfo, field_validator, model_validator

from cl_steps.config import Block, validate_block
from cl_steps.documents import Unreadable, read_yaml
from cl_steps.errors import UsageError
from cl_steps.lineage import keys
from cl_steps.workspace.line import Line, resolve
from dags.pods import FILES
from dags.profiles import LOCAL, Ask, Notify, Profile, Secrets
from dags.schedule import CRON, PRESETS, spread

TAKEN = ("watch", "audit", "prune", "rollback", "withdraw")
"""DAGs of all lines together, `retain_<name>` too."""
ENVIRONMENT_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"


class Entry(Block):
    """One line: where its workspace is, when its runs begin, where its steps run and what they may see.

    `credentials` is a folder with the same files as the line's Secret `step`, for the light tasks that Airflow itself
    does. `keys` is a folder as `retain keys` makes it, for the processes of a line that is given by its Git URL.
    `gpu_hours` is what the line may use in any 30 days; `overdue_hours` without a finished run raise the alarm; runs
    that came to nothing are let go after `keep_days`.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")]
    workspace: Annotated[str, Field(min_length=1)]
    profile: Profile = LOCAL
    secrets: Secrets | None = None
    credentials: str = ""
    keys: str = ""
    schedule: str | None = "@daily"
    jitter_minutes: Annotated[int, Field(ge=0, le=720)] = 0
    timezone: str = "UTC"
    start: Annotated[date, Strict(strict=False)] = date(2024, 1, 1)
    store: str = ""
    work: str = ""
    landing: str = ""
    environment: tuple[Annotated[str, StringConstraints(pattern=ENVIRONMENT_NAME)], ...] = ()
    retries: Annotated[int, Field(ge=0)] = 5
    retry_seconds: Annotated[float, Field(ge=0)] = 30.0
    step_hours: Annotated[float, Field(gt=0)] = 24.0
    page: bool = True
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    keep_days: Annotated[float, Field(gt=0)] = 30.0
    ask: Ask = Ask()
    notify: tuple[Notify, ...] = ()
    overdue_hours: Annotated[float, Field(gt=0)] | None = 26.0

    @field_validator("name")
    @classmethod
    def _no_other_dag(cls, value: str) -> str:
        if value in TAKEN:
            raise ValueError(f"a DAG of all lines is called retain_{value}: give the line another name")
        return value

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, value: str | None) -> str | None:
        if value is not None and value not in PRESETS and not CRON.fullmatch(value):
            raise ValueError(f"a schedule is {', '.join(PRESETS)}, five cron fields, or null (by hand only)")
        return value

    @field_validator("jitter_minutes")
    @classmethod
    def _can_be_spread(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("schedule"):
            spread(info.data["schedule"], value, info.data.get("name", ""))
        return value

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("a timezone is a name such as Europe/Berlin") from error
        return value

    @model_validator(mode="after")
    def _pods_reach_their_line(self) -> Entry:
        if self.profile.runner == "pod" and ("://" not in self.workspace or not self.store):
            raise ValueError("a line whose steps are pods needs a Git URL as its workspace, and a store")
        return self

    @property
    def cron(self) -> str | None:
        """When its nights begin, as five fields, its own jitter in them."""
        return spread(self.schedule, self.jitter_minutes, self.name) if self.schedule else None

    @property
    def dag_id(self) -> str:
        """What Airflow calls the line."""
        return f"retain_{self.name}"

    @property
    def places(self) -> Mapping[str, str]:
        """How a step finds the line's places, where `lines.yaml` names them."""
        found = {"RETAIN_STORE_URL": self.store, "RETAIN_WORK": self.work, "RETAIN_LANDING": self.landing}
        return {name: value for name, value in found.items() if value}

    @property
    def settings(self) -> Mapping[str, str]:
        """The same for a process on Airflow's own machines, with the files of its credentials and whom it trusts."""
        trusted = {"RETAIN_TRUSTED_KEYS": str(Path(self.keys) / keys.TRUSTED)} if self.keys else {}
        return {**self.places, **self._files(), **trusted}

    @property
    def signing(self) -> Mapping[str, str]:
        """How a process that may sign finds the key."""
        return {"RETAIN_SIGNING_KEY": str(Path(self.keys) / keys.SIGNING)} if self.keys else {}

    def line(self) -> Line:
        """The line's places, now; this process may reach them from here on.

        Raises:
            UsageError: the workspace is none.
        """
        os.environ.update(self._files())
        if self.store:
            return Line(self.workspace, self.store, self.work, self.landing)
        return resolve(self.workspace)

    def _files(self) -> dict[str, str]:
        """The files of the credentials that are there, by the variable that names each."""
        found = {name: Path(self.credentials) / file for name, file in FILES.items()} if self.credentials else {}
        return {name: str(file) for name, file in found.items() if file.is_file()}


def lines_file() -> Path:
    """`$RETAIN_LINES`, or `lines.yaml` beside the folder of the DAGs."""
    given = os.environ.get("RETAIN_LINES")
    return Path(given) if given else Path(__file__).resolve().parents[1] / "lines.yaml"


def read_lines(path: Path) -> tuple[Entry, ...]:
    """The lines of a `lines.yaml`; none where there is no such file and nobody named one.

    Raises:
        UsageError: no such file as `RETAIN_LINES` names, no YAML, an unknown key, a wrong value, a name used twice, a
            profile that is not there.
    """
    if not path.is_file():
        if os.environ.get("RETAIN_LINES"):
            raise UsageError(f"RETAIN_LINES names {path}, which is not there: write it, or unset RETAIN_LINES")
        return ()
    document = _document(path)
    profiles = {"local": LOCAL} | {
        name: validate_block(Profile, _mapping(values, f"lines.yaml (profile {name})"), f"lines.yaml (profile {name})")
        for name, values in document.get("profiles", {}).items()
    }
    entries = tuple(_entry(values, number, profiles) for number, values in enumerate(document["lines"], start=1))
    names = [entry.name for entry in entries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"lines.yaml has two lines named {twice!r}: a line's name is its DAG's: give each its own")
    return entries


def _document(path: Path) -> dict[str, Any]:
    try:
        document = read_yaml(path.read_bytes())
    except Unreadable as error:
        raise UsageError(f"{path} is not valid YAML ({error}): mend it and Airflow reads it again by itself") from error
    if not isinstance(document, dict) or not isinstance(document.get("lines"), list):
        raise UsageError(f"{path} must hold the key `lines`, with a list of entries that have a name and a workspace")
    if set(document) - {"lines", "profiles"} or not isinstance(document.get("profiles", {}), dict):
        raise UsageError(f"{path} may hold `lines` and `profiles` (names with their settings), and nothing else")
    return document


def _entry(values: Any, number: int, profiles: Mapping[str, Profile]) -> Entry:
    where = f"lines.yaml (entry {number})"
    found = _mapping(values, where)
    name = found.get("profile", "local")
    if name not in profiles:
        raise UsageError(f"{where} wants the profile {name!r}, and there are {', '.join(profiles)}: name one of them")
    return validate_block(Entry, {**found, "profile": profiles[name]}, where)


def _mapping(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UsageError(f"{where} must hold keys and values, for example `name: my-line`")
    return values
