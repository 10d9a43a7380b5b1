"""The trial's file: what each section found, written after each figure, so that what is cut leaves what was there."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import diffusers
import peft
import torch
from pydantic import ValidationError

from cl_steps.config import Block
from cl_steps.documents import write_json
from cl_steps.errors import UsageError, first_line
from tests.benchmarks.scoreboard import RESULTS, Scoreboard, commit, this_machine
from tests.gpu.trial.sections import Figure, NotThereYet, Section, Setting
from tests.gpu.trial.timing import OutOfTime, box, free

State = Literal["done", "cut", "failed", "not there yet"]
LEAST_SECONDS = 10.0
"""With less left no section is begun."""


class Found(Block):
    """What a section came to; `why` says it where it is not done, `trace` where that was not foreseen."""

    state: State
    seconds: float
    figures: tuple[Figure, ...] = ()
    why: str = ""
    trace: str = ""


class Outcome(Block):
    """The whole file."""

    device: str
    is_miniature: bool
    commit: str
    versions: Mapping[str, str]
    sections: Mapping[str, Found] = {}


@dataclass
class Trial:
    """Runs sections one after the other into a file; begun again with the same file it goes on."""

    setting: Setting
    file: Path
    say: Callable[[str], object] = print
    outcome: Outcome = field(init=False)

    def __post_init__(self) -> None:
        begun = Outcome(
            device=torch.cuda.get_device_name() if self.setting.device.type == "cuda" else this_machine(),
            is_miniature=self.setting.is_miniature,
            commit=commit(),
            versions={module.__name__: str(module.__version__) for module in (torch, diffusers, peft)},
        )
        self.outcome = read(self.file) if self.file.exists() else begun
        if (self.outcome.device, self.outcome.is_miniature) != (begun.device, begun.is_miniature):
            raise UsageError(f"{self.file} is of another trial, on {self.outcome.device}: name another file")

    def run(self, sections: Mapping[str, Section], seconds: float) -> None:
        """All sections that are not done yet, within so many seconds."""
        end = time.monotonic() + seconds
        for name, section in sections.items():
            before = self.outcome.sections.get(name)
            if before and before.state == "done":
                continue
            left = end - time.monotonic()
            if left < LEAST_SECONDS:
                self._put(name, before or Found(state="cut", seconds=0, why="there was no time left for it"))
                continue
            # A CPU may be busy: a miniature has all the time that is left.
            self._section(name, section, left if self.setting.is_miniature else min(left, section.seconds))

    def _section(self, name: str, section: Section, seconds: float) -> None:
        began, figures = time.monotonic(), list[Figure]()

        def put(state: State, why: str = "", trace: str = "") -> None:
            took = time.monotonic() - began
            self._put(name, Found(state=state, seconds=took, figures=tuple(figures), why=why, trace=trace))

        try:
            with box(seconds):
                for figure in section.figures(self.setting):
                    figures.append(figure)
                    self.say(f"{name}: {figure.name}: {figure.value:.4g} {figure.unit}")
                    put("cut", "it was ended from outside")
            put("done")
        except OutOfTime:
            put("cut", f"its {seconds:.0f} seconds were over")
        except NotThereYet as error:
            put("not there yet", f"{error} is not there yet")
        except Exception as error:  # whatever one section meets, the others go on
            put("failed", f"{type(error).__name__}: {first_line(error)}", traceback.format_exc())
        found = self.outcome.sections[name]
        self.say(f"{name}: {found.state} in {found.seconds:.0f} s {found.why}".rstrip())
        free(self.setting.device)

    def _put(self, name: str, found: Found) -> None:
        self.outcome = self.outcome.model_copy(update={"sections": {**self.outcome.sections, name: found}})
        write_json(self.file, self.outcome.model_dump(mode="json"))


def read(file: Path) -> Outcome:
    """A file of a trial.

    Raises:
        UsageError: it is none.
    """
    try:
        return Outcome.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError(f"{file} is no file of this trial: name another") from error


def record(outcome: Outcome, file: Path = RESULTS) -> None:
    """Enter its figures into the scoreboard.

    Raises:
        UsageError: they are a miniature's.
    """
    if outcome.is_miniature:
        raise UsageError("a miniature's figures are no claims: --record is for the file of a trial on a GPU")
    # A device's copy of the tree may have no Git: then it is that of this checkout.
    known = outcome.commit if outcome.commit != "unknown" else commit()
    board = Scoreboard("python -m tests.gpu.trial --out trial.json", outcome.device, commit=known, file=file)
    for found in outcome.sections.values():
        for figure in found.figures:
            board.record(figure.name, figure.value, figure.unit, goal=figure.goal, form=figure.form)
