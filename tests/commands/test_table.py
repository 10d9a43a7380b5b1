"""The table of commands and the functions that it names fit together."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

from cl_steps.__main__ import COMMANDS, Command, _parser


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_command_is_a_function_of_its_own_folder_that_takes_just_its_arguments(command: Command) -> None:
    module, _, name = command.function.partition(":")
    assert module.startswith("cl_steps.commands.")
    parameters = inspect.signature(getattr(import_module(module), name)).parameters
    given = [a.options.get("dest") or a.names[-1].lstrip("-").replace("-", "_") for a in command.arguments]
    assert sorted(given) == sorted(parameters)


def test_a_command_gets_nothing_but_its_own_arguments() -> None:
    assert set(vars(_parser().parse_args(["migrate"]))) == {"command", "dir"}
