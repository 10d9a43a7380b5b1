"""`retain demo`: what it plays, what it shows, and that it goes on where it was. The runs themselves are false."""

from __future__ import annotations

import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cl_steps.commands import demo
from cl_steps.commands.screen import Screen
from cl_steps.documents import json_text
from cl_steps.errors import RetainError, UsageError
from cl_steps.ledger.events import event_path
from cl_steps.repository.line import resolve
from cl_steps.repository.mainline import Change, reading
from tests.dags.conftest import make_line
from tests.lasting import whole_event


class FalsePlayer:
    """Ends each run as the test says, with an event on main, and remembers what it was asked."""

    failing: ClassVar[str] = ""
    asked: ClassVar[list[tuple[str, str, dict[str, Any], list[str]]]] = []

    def __init__(self, folder: Path, watcher: Any) -> None:
        self._folder, self._watcher = folder, watcher

    @classmethod
    def open(cls, home: Path, lines: Path, line: str, watcher: Any) -> FalsePlayer:
        return cls(home.parents[1], watcher)

    def identity(self, kind: str, moment: datetime) -> str:
        return f"{moment:%Y-%m-%d}-{kind}"

    def play(self, kind: str, moment: datetime, form: dict[str, Any]) -> bool:
        run = self.identity(kind, moment)
        landed = sorted(path.name for path in (self._folder / "landing").iterdir())
        FalsePlayer.asked.append((kind, run, form, landed))
        for task in ("open", "ingest", "close"):
            self._watcher.began(task)
            self._watcher.said(f"{task} at work\x1b[31m")
            failed = (run, task) == (FalsePlayer.failing, "ingest")
            self._watcher.ended(task, "failed" if failed else "success")
            if failed:
                return False
        event = whole_event({"kind": "run", "run": run, "outcome": "promoted", "version": "v2", "why": "because"})
        with reading(resolve(str(self._folder)).git) as main:
            assert main.push(Change({event_path("run", run): json_text(event).encode()}, "close"))
        return True


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def make(folder: Path, seed: int, screen: Screen) -> None:
        (folder / "landing").mkdir(parents=True)
        make_line(folder)
        (folder / demo.MARKER).write_text(json.dumps({"seed": seed, "finished": False}), encoding="utf-8")

    monkeypatch.setattr("cl_steps.orchestration.play.Player", FalsePlayer)
    monkeypatch.setattr(FalsePlayer, "failing", "")
    monkeypatch.setattr(FalsePlayer, "asked", [])
    monkeypatch.setattr(demo, "_make_line", make)
    monkeypatch.setattr(demo, "_table", lambda line, folder: "the table")
    monkeypatch.setattr(demo, "write_night", lambda folder, night, seed: folder.mkdir(exist_ok=True))
    monkeypatch.setattr(demo, "sync", lambda folder, line: None)
    return tmp_path / "demo-line"


def test_four_nights_and_the_question(stage: Path, capfd: pytest.CaptureFixture[str]) -> None:
    demo.play(stage, 0)
    kinds = [(kind, run, len(landed)) for kind, run, _, landed in FalsePlayer.asked]
    nights = [("scheduled", f"2026-01-0{night}-scheduled", night) for night in (1, 2, 3, 4)]
    assert kinds == [*nights, ("manual", "2026-01-05-manual", 4)]
    form = FalsePlayer.asked[-1][2]
    assert form == {
        "batch": "2026-01-02-scheduled",
        "method": "finetune",
        "force": True,
        "reason": "what would plain fine-tuning do?",
    }
    shown = capfd.readouterr()
    assert shown.out == "the table\n"
    assert "night 3  promoted v2: because" in shown.err
    assert "night 1  ingest" in shown.err
    assert "open" not in shown.err


def test_it_goes_on_where_it_was(stage: Path, capfd: pytest.CaptureFixture[str]) -> None:
    FalsePlayer.failing = "2026-01-03-scheduled"
    with pytest.raises(RetainError, match=r"night 3 failed in ingest: its log is .*demo\.log"):
        demo.play(stage, 0)
    assert "    ingest at work?[31m" in capfd.readouterr().err
    FalsePlayer.failing, FalsePlayer.asked = "", []
    demo.play(stage, 0)
    assert [run[:10] for _, run, _, _ in FalsePlayer.asked] == ["2026-01-03", "2026-01-04", "2026-01-05"]


@pytest.mark.parametrize("again", [0, 1])
def test_a_complete_demo_begins_anew(stage: Path, again: int) -> None:
    demo.play(stage, 0)
    (stage / "left").touch()
    FalsePlayer.asked = []
    demo.play(stage, again)
    assert not (stage / "left").exists()
    assert len(FalsePlayer.asked) == 5


def test_it_does_not_touch_what_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="not made by `retain demo`"):
        demo.play(tmp_path, 0)
    assert (tmp_path / "thesis.tex").exists()


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_living_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    terminal = Terminal()
    screen = Screen(terminal)
    screen.began("night 1  update")
    screen.said("training: 10 of 600" + "." * 100)
    screen._show()
    screen.ended("failed")
    living, last = terminal.getvalue().rsplit("\r\x1b[2K", 1)
    assert last.startswith("night 1  update")
    assert last.endswith(" s  failed\n")
    assert "training: 10 of 600" in living
    assert max(len(part) for part in living.split("\r\x1b[2K")) == 59


def test_elsewhere_a_step_is_a_line() -> None:
    log = io.StringIO()
    screen = Screen(log)
    screen.began("night 1  drift")
    screen.said("features: 10 of 20")
    screen.ended()
    assert log.getvalue().splitlines() == ["night 1  drift             0.0 s"]
