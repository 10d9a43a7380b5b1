"""The table of commands and the functions that it names fit together."""

from __future__ import annotations

import inspect
import os
from importlib import import_module
from pathlib import Path

import pytest

from cl_steps.__main__ import COMMANDS, Command, _parser, main


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_command_is_a_function_of_its_own_folder_that_takes_just_its_arguments(command: Command) -> None:
    module, _, name = command.function.partition(":")
    assert module.startswith("cl_steps.commands.")
    parameters = inspect.signature(getattr(import_module(module), name)).parameters
    given = [a.options.get("dest") or a.names[-1].lstrip("-").replace("-", "_") for a in command.arguments]
    assert sorted(given) == sorted(parameters)


def test_a_command_gets_nothing_but_its_own_arguments() -> None:
    assert set(vars(_parser().parse_args(["migrate"]))) == {"command", "dir"}


def test_threads_that_wait_leave_the_processors_to_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert main(["status", str(tmp_path)]) == 2
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE", "who says otherwise is heard"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert main(["status", str(tmp_path)]) == 2
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    capsys.readouterr()
