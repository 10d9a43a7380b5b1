"""`retain demo`: a line of its own, four nights, and what plain fine-tuning would have done in the second of them.

The nights are runs of the line's Airflow DAG, with an Airflow that lies in the demo's folder. What steps and Airflow
print goes to a log there. A demo that was interrupted goes on where it was; one that is complete begins anew.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import yaml

from cl_steps.commands.screen import Screen
from cl_steps.demo.nights import write_initial, write_night
from cl_steps.documents import write_json
from cl_steps.errors import RetainError, UsageError
from cl_steps.ledger.events import FINAL
from cl_steps.operations.play import run_events
from cl_steps.pipeline import STEPS
from cl_steps.repository.checkout import sync
from cl_steps.repository.line import Line, resolve

if TYPE_CHECKING:
    from cl_steps.orchestration.play import Player

NAME = "demo"
MARKER = ".retain/demo.json"
NIGHTS = (1, 2, 3, 4)
AGAIN = 2
QUESTION = "what would plain fine-tuning do?"
OVERRIDES: dict[str, Any] = {
    "name": NAME,
    "update.steps": 240,
    "update.batch_size": 32,
    "update.learning_rate": 1.8e-3,
    "update.base_learning_rate": 2.0e-3,
    "update.ema_decay": 0.95,
    "update.methods.distillation.weight": 2.0,
    "update.checkpoint_every": 120,
    "update.lora.target_modules": [
        *("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"),
        *("conv1", "conv2", "conv_shortcut", "time_emb_proj"),
    ],
    "serving.num_inference_steps": 10,
    "serving.guidance_scale": 2.0,
    "compute.threads": 1,
}
"""How the demo's line differs from an ordinary one: its model is tiny and learns fast."""
LOG = ".retain/demo.log"
LINES_SHOWN = 20
WORDS = {"success": "", "skipped": "skipped", "failed": "failed", "again": "failed, and tried again"}


def demo(dir: str, seed: int, train_base: str | None) -> None:
    """Play the demo in `dir`, or with `train_base` make the demo's models again instead."""
    if train_base is not None:
        _train(Path(train_base), seed)
    else:
        play(Path(dir), seed)


def play(folder: Path, seed: int) -> None:
    """Play the demo; its table and the path of its page are printed on stdout at the end.

    Raises:
        UsageError: the folder is not empty and no demo's, or Airflow is not installed.
        RetainError: a run failed.
    """
    folder = folder.resolve()
    _require_airflow()
    _clear_the_stage(folder, seed)
    with _terminal() as (terminal, redirect):
        screen = Screen(terminal)
        if not (folder / MARKER).is_file():
            _make_line(folder, seed, screen)
        redirect(folder / LOG)
        _Play(folder, seed, resolve(str(folder)), screen).all()
    print(_table(resolve(str(folder)), folder))


class _Play:
    """A play in progress; it watches its own runs."""

    def __init__(self, folder: Path, seed: int, line: Line, screen: Screen) -> None:
        self._folder, self._seed, self._line, self._screen = folder, seed, line, screen
        self._label = self._failed = ""

    def all(self) -> None:
        """The nights and the question; what is done already is not done again."""
        player = self._player()
        for night in NIGHTS:
            self._label = f"night {night}"
            write_night(Path(self._line.landing) / f"night-{night}", night, self._seed)
            self._run(player, "scheduled", _morning(night), {})
        self._label = f"again {AGAIN}"
        batch = player.identity("scheduled", _morning(AGAIN))
        form = {"batch": batch, "method": "finetune", "force": True, "reason": QUESTION}
        self._run(player, "manual", _morning(len(NIGHTS) + 1), form)
        sync(self._folder, self._line)
        # From here on nights are Airflow's, and its tab shows the page that each of them writes.
        self._write_lines(page=True)
        write_json(self._folder / MARKER, {"seed": self._seed, "finished": True})

    def began(self, task: str) -> None:
        """Show a step; the light tasks between them are not worth a line."""
        if task in STEPS:
            self._screen.began(f"{self._label:<9}{task}")

    def said(self, line: str) -> None:
        """Show what a step says last."""
        self._screen.said(line)

    def ended(self, task: str, state: str) -> None:
        """How it ended, where that is not as it should be with the last lines of its log."""
        self._screen.ended(WORDS[state])
        if state == "failed":
            self._failed = self._failed or task
            for line in list(self._screen.latest)[-LINES_SHOWN:]:
                self._screen.line(f"    {line}")

    def _player(self) -> Player:
        from cl_steps.orchestration.play import Player

        lines = self._write_lines(page=False)
        self._screen.began("starting Airflow")
        player = Player.open(self._folder / ".retain" / "airflow", lines, NAME, self)
        self._screen.ended()
        return player

    def _write_lines(self, *, page: bool) -> Path:
        lines = self._folder / ".retain" / "lines.yaml"
        entry = {"name": NAME, "workspace": str(self._folder), "retry_seconds": 5, "page": page}
        lines.write_text(yaml.safe_dump({"lines": [entry]}), encoding="utf-8")
        return lines

    def _run(self, player: Player, kind: str, moment: datetime, form: dict[str, Any]) -> None:
        run, began = player.identity(kind, moment), time.monotonic()
        ended = run_events(self._line).get(run)
        if ended is None or ended.outcome not in FINAL:
            self._failed = ""
            if not player.play(kind, moment, form):
                where = f"{self._label} failed" + (f" in {self._failed}" if self._failed else "")
                raise RetainError(f"{where}: its log is {self._folder / LOG}, and the same command tries again")
        event = run_events(self._line)[run]
        took = f"{time.monotonic() - began:.0f} s"
        outcome = " ".join(filter(None, (event.outcome, event.version)))
        self._screen.line(f"{self._label:<9}{outcome}: {event.why} ({took})\n")


def _morning(day: int) -> datetime:
    """When a night's run is due, by the demo's own calendar."""
    return datetime(2026, 1, day, tzinfo=UTC)


def _table(line: Line, folder: Path) -> str:
    from cl_steps.operations.page import write_report
    from cl_steps.report.collect import collect
    from cl_steps.report.table import nights_table

    return f"{nights_table(collect(line))}\n\nthe line's page: {write_report(line, folder / 'reports')}"


def _require_airflow() -> None:
    if find_spec("airflow") is None:
        raise UsageError("the demo plays under Airflow: pip install 'retain[airflow,steps]', then try again")


def _clear_the_stage(folder: Path, seed: int) -> None:
    """Remove a demo that is complete or of another seed; leave one that was interrupted."""
    marker = folder / MARKER
    if marker.is_file():
        earlier = json.loads(marker.read_text(encoding="utf-8"))
        if earlier["finished"] or earlier["seed"] != seed:
            shutil.rmtree(folder)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty and was not made by `retain demo`: choose another folder")


def _make_line(folder: Path, seed: int, screen: Screen) -> None:
    """`retain init` on the first pictures, in a process of its own: its libraries are large."""
    screen.began("making the line")
    with tempfile.TemporaryDirectory(prefix="retain-") as scratch:
        write_initial(Path(scratch), seed)
        values = (f"{key}={json.dumps(value)}" for key, value in {**OVERRIDES, "seed": seed}.items())
        arguments = ["init", str(folder), "--data", scratch, *(part for value in values for part in ("--set", value))]
        _retain(arguments, screen)
    screen.ended()
    write_json(folder / MARKER, {"seed": seed, "finished": False})


def _retain(arguments: list[str], screen: Screen) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(
        [sys.executable, "-m", "cl_steps", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    with process:
        for line in process.stdout or ():
            screen.said(line.rstrip())
    if process.returncode:
        screen.ended("failed")
        raise RetainError("the demo's line cannot be made: " + (screen.latest[-1] if screen.latest else "no word why"))


@contextmanager
def _terminal() -> Iterator[tuple[TextIO, Callable[[Path], None]]]:
    """The terminal, and a function that sends what this process and its children print to a file instead."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]

    def redirect(path: Path) -> None:
        with path.open("ab") as log:
            for number in (1, 2):
                os.dup2(log.fileno(), number)

    try:
        with os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace") as terminal:
            yield terminal, redirect
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, saved in enumerate(kept, start=1):
            os.dup2(saved, number)
            os.close(saved)


def _train(folder: Path, seed: int) -> None:
    from cl_steps.demo.train import train_base, train_extractor

    train_base(folder / "base", seed)
    train_extractor(folder / "extractor", seed)
