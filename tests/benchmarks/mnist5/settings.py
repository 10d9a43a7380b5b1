"""What `settings.yaml` says, typed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from cl_steps.config import Block, Count, Knob, Positive, Share, validate_block
from cl_steps.documents import read_yaml

FILE = Path(__file__).with_name("settings.yaml")
TASKS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
CLASSES = tuple(range(10))


class Form(Block):
    """How large everything is; see the file."""

    size: Count
    channels: tuple[Count, ...]
    layers: Count
    attention: tuple[int, ...]
    groups: Count
    batch_size: Count
    steps: tuple[Count, Count]
    learning_rate: Positive
    ema_decay: Share
    samples: Count
    sampling_steps: Count
    generated: Count
    fisher_draws: Count
    threads: Annotated[int, Field(ge=0)]

    def steps_of(self, task: int) -> int:
        """Of a task, counted from 0."""
        return self.steps[min(task, 1)]

    @property
    def a_class(self) -> int:
        """How many samples of a class are scored."""
        return self.samples // len(CLASSES)


class Choice(Block):
    """One setting of a row's knobs."""

    rate: Positive = 1.0
    methods: Mapping[str, Mapping[str, Knob]] = {}


class Row(Block):
    """One way to learn the five tasks."""

    words: str
    old: Literal["none", "all", "generated"] | Count = "none"
    batch: Count = 1
    steps: Count = 1
    choices: Annotated[tuple[Choice, ...], Field(min_length=1)]


class Settings(Block):
    """The file."""

    forms: Mapping[str, Form]
    rows: Mapping[str, Row]
    chosen: Mapping[str, int]

    def choice(self, row: str) -> Choice:
        """The one that a row takes."""
        return self.rows[row].choices[self.chosen.get(row, 0)]


def read_settings(file: Path = FILE) -> Settings:
    """Raises UsageError where a key or a value is wrong."""
    values: dict[str, Any] = read_yaml(file.read_bytes())
    return validate_block(Settings, values, file.name)
