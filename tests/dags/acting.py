"""Stands in for the commands of maintenance and of people: writes down how it was called, and does as it is told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from cl_steps.documents import json_text
from cl_steps.ledger.events import event_path
from cl_steps.records.builders import now
from cl_steps.repository.line import Line, resolve
from cl_steps.repository.mainline import Change, reading
from tests.lasting import whole_champion, whole_event, whole_record


class ActingChild:
    """As `runners.Child`, in this process; `CALLS` has the arguments and the environment of each."""

    CALLS: ClassVar[list[tuple[tuple[str, ...], Mapping[str, str]]]] = []
    CODES: ClassVar[dict[str, list[int]]] = {}
    """By the workspace's last part: the exit codes of its calls, then 0."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        self.CALLS.append((tuple(arguments), env))
        self._arguments = arguments
        where = [word.removeprefix("--dir=") for word in arguments if word.startswith(("--dir=", "/"))]
        self._workspace = where[0]

    def run(self) -> tuple[int, str]:
        codes = self.CODES.get(Path(self._workspace).name, [])
        if codes:
            return codes.pop(0), "retain: what is wrong, in a sentence"
        if self._arguments[0] == "rollback":
            restore(resolve(self._workspace), self._arguments)
        return 0, "done"

    def end(self) -> None:
        pass


def restore(line: Line, arguments: Sequence[str]) -> None:
    """The commit of a rollback, as the ledger has it."""
    said = dict(word.removeprefix("--").split("=", 1) for word in arguments if "=" in word)
    version = arguments[1]
    event: dict[str, Any] = {
        "schema": 2,
        "kind": "rollback",
        "at": now(),
        "by": said["by"],
        "through": said["through"],
        "reason": said["reason"],
        "version": version,
        "from": "v2",
        "lineage": [version],
        "left": ["v2"],
        "relearn": "--relearn" in arguments,
    }
    files = {
        event_path("rollback", version): json_text(whole_event(event)).encode(),
        "state/champion.json": json.dumps(whole_champion(version)).encode(),
    }
    with reading(line.git) as main:
        assert main.push(Change(files, f"roll back to {version}"))


def with_versions(line: Line, *numbers: int) -> None:
    """Records of versions on main, the last one the champion."""
    files = {
        f"versions/v{number:04}.json": json_text(
            whole_record(
                {
                    "version": f"v{number}",
                    "parent": f"v{number - 1}" if number > 1 else None,
                    "created": now(),
                    "digests": {"state": {"adapter": f"{number:032x}.dir"}, "base": f"{'b' * 32}.dir"},
                }
            )
        ).encode()
        for number in numbers
    }
    files["state/champion.json"] = json.dumps(whole_champion(f"v{numbers[-1]}")).encode()
    with reading(line.git) as main:
        assert main.push(Change(files, "versions"))
