"""`lines.yaml`: which lines this Airflow keeps up to date, when, and by which compute profile."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, Strict, StringConstraints, ValidationInfo, field_validator, model_validator

from cl_steps.config import Block, validate_block
from cl_steps.documents import Json, Unreadable, read_yaml
from cl_steps.errors import UsageError
from cl_steps.orchestration.pods.manifest import FILES
from cl_steps.orchestration.pods.profiles import LOCAL, Ask, Notify, Profile, Secrets
from cl_steps.orchestration.schedule import check, spread
from cl_steps.records import keys
from cl_steps.repository.line import Line, resolve

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
    retries: Annotated[int, Field(ge=0, le=100)] = 5
    retry_seconds: Annotated[float, Field(ge=0, le=86400)] = 30.0
    step_hours: Annotated[float, Field(gt=0, le=720)] = 24.0
    page: bool = True
    gpu_hours: Annotated[float, Field(gt=0, le=100_000)] | None = None
    keep_days: Annotated[float, Field(gt=0, le=36_500)] = 30.0
    ask: Ask = Ask()
    notify: tuple[Notify, ...] = ()
    overdue_hours: Annotated[float, Field(gt=0, le=8760)] | None = 26.0

    @field_validator("name")
    @classmethod
    def _no_other_dag(cls, value: str) -> str:
        if value in TAKEN:
            raise ValueError(f"a DAG of all lines is called retain_{value}: give the line another name")
        return value

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, value: str | None) -> str | None:
        if value is not None:
            check(value)
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
        if self.profile.runner == "pod" and self.environment:
            raise ValueError(
                "`environment` names variables of Airflow's worker, and a pod sees none of them: give them values in "
                "the profile's `environment`"
            )
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

    @property
    def judging(self) -> Mapping[str, str]:
        """How a process that judges finds its key."""
        return {"RETAIN_JUDGE_KEY": str(Path(self.keys) / keys.JUDGE)} if self.keys else {}

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
    return Path(given) if given else Path(__file__).resolve().parents[2] / "lines.yaml"


@dataclass(frozen=True)
class Fault:
    """A part of `lines.yaml` that cannot be read: the line that it is about, where that is known, and a sentence."""

    line: str
    sentence: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.sentence}" if self.line else self.sentence


@dataclass(frozen=True)
class Reading:
    """What a `lines.yaml` says: its lines, each read alone, and what is wrong in it."""

    entries: tuple[Entry, ...] = ()
    faults: tuple[Fault, ...] = ()

    def fault_of(self, line: str) -> Fault | None:
        """Why a line that the file may hold is not among the entries."""
        return next((fault for fault in self.faults if fault.line == line), None)


def read_lines(path: Path) -> tuple[Entry, ...]:
    """The lines of a `lines.yaml` that can be read; raises UsageError as `read` does."""
    return read(path).entries


def line_called(name: str, path: Path) -> Entry:
    """A line by its name; raises UsageError, which says why it is not there."""
    reading = read(path)
    found = next((entry for entry in reading.entries if entry.name == name), None)
    if found:
        return found
    fault = reading.fault_of(name)
    raise UsageError(str(fault) if fault else f"lines.yaml has no line {name!r} any more: name one that is there")


def read(path: Path) -> Reading:
    """A `lines.yaml`, each of its entries alone; nothing where there is no such file and nobody named one.

    Raises:
        UsageError: no such file as `RETAIN_LINES` names, no YAML, no list of lines.
    """
    if not path.is_file():
        if os.environ.get("RETAIN_LINES"):
            raise UsageError(f"RETAIN_LINES names {path}, which is not there: write it, or unset RETAIN_LINES")
        return Reading()
    try:
        document = _document(path)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read ({error}): mend it and Airflow reads it again by itself") from error
    return _read(document)


def _read(document: Json) -> Reading:
    profiles, wrong = _profiles(document.get("profiles", {}))
    faults = [Fault("", sentence) for sentence in (*_unknown(document), *wrong.values())]
    entries: list[Entry] = []
    taken: dict[str, int] = {}
    for number, values in enumerate(document["lines"], start=1):
        where, name = f"lines.yaml (entry {number})", _name_in(values)
        try:
            _claim(name, number, taken)
            entries.append(_entry(values, where, profiles, wrong))
        except UsageError as error:
            faults.append(Fault(name, str(error)))
        except Exception as error:
            # Whatever it is, it is this entry's alone.
            faults.append(Fault(name, f"{where} cannot be read ({type(error).__name__}: {error}): write it anew"))
    return Reading(tuple(entries), tuple(faults))


def _claim(name: str, number: int, taken: dict[str, int]) -> None:
    """Take a name for an entry, whether or not it can be read: a line's name is its DAG's, the first one has it."""
    if name and taken.setdefault(name, number) != number:
        raise UsageError(f"lines.yaml (entry {number}) has the name of entry {taken[name]}: give each line its own")


def _unknown(document: Json) -> list[str]:
    there = (key for key in document if key not in ("lines", "profiles"))
    return [f"lines.yaml may hold `lines` and `profiles`, and nothing else: remove {key!r}" for key in there]


def _name_in(values: Any) -> str:
    """What an entry calls its line, or nothing."""
    name = values.get("name") if isinstance(values, dict) else None
    return name if isinstance(name, str) else ""


def _profiles(values: Any) -> tuple[dict[Any, Profile], dict[Any, str]]:
    """The profiles that can be read, and a sentence about each that cannot."""
    found: dict[Any, Profile] = {"local": LOCAL}
    if not isinstance(values, dict):
        return found, {None: "lines.yaml holds `profiles` that are no names with their settings: write them so"}
    wrong: dict[Any, str] = {}
    for name, settings in values.items():
        where = f"lines.yaml (profile {name})"
        try:
            found[name] = validate_block(Profile, _mapping(settings, where), where)
        except UsageError as error:
            wrong[name] = str(error)
            found.pop(name, None)
    return found, wrong


def _document(path: Path) -> dict[str, Any]:
    try:
        document = read_yaml(path.read_bytes())
    except Unreadable as error:
        raise UsageError(f"{path} is not valid YAML ({error}): mend it and Airflow reads it again by itself") from error
    if not isinstance(document, dict) or not isinstance(document.get("lines"), list):
        raise UsageError(f"{path} must hold the key `lines`, with a list of entries that have a name and a workspace")
    return document


def _entry(values: Any, where: str, profiles: Mapping[Any, Profile], wrong: Mapping[Any, str]) -> Entry:
    found = _mapping(values, where)
    name = found.get("profile", "local")
    if not isinstance(name, str):
        raise UsageError(f"{where} has a wrong value for 'profile': write the name of one of `profiles`")
    if name in wrong:
        raise UsageError(f"{where} wants the profile {name!r}, which cannot be read: {wrong[name]}")
    if name not in profiles:
        there = ", ".join(map(str, profiles))
        raise UsageError(f"{where} wants the profile {name!r}, and there are {there}: name one of them")
    return validate_block(Entry, {**found, "profile": profiles[name]}, where)


def _mapping(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UsageError(f"{where} must hold keys and values, for example `name: my-line`")
    return values
