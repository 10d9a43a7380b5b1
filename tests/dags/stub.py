"""Stands in for `retain step`: a step that leaves the verdict that the test wrote down, with Git alone.

The scenario lies in the workspace's `scenario.json`: step to verdict, or to `{"codes": [...]}`, the exit codes of its
tries; the tries after those go well. A promotion that ends with code 4 finds that another run was faster.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cl_steps.documents import json_text
from cl_steps.ledger.events import event_bytes, event_path
from cl_steps.pipeline import STAGES, STEPS
from cl_steps.records.builders import now, run_event
from cl_steps.repository.line import Line, resolve
from cl_steps.repository.mainline import Change, reading
from cl_steps.repository.run_branch import checked_out, run_state
from cl_steps.run.context import StepReport, write_report
from cl_steps.run.stage import push_branch
from cl_steps.steps import close
from tests.lasting import whole_champion, whole_record

FIGURES = {
    "ingest": {"batch": {"runs": [], "assets": 3, "slices": {}, "digest": "0"}, "intake": {"assets": 0, "slices": {}}}
}


class StubChild:
    """As `cl_steps.orchestration.runners.Child`, in this process."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        _, self._name, _, workspace, _, self._run = arguments
        self._workspace = Path(workspace)
        self._line = resolve(workspace)

    def run(self) -> tuple[int, str]:
        wish = json.loads((self._workspace / "scenario.json").read_text()).get(self._name)
        calls = self._workspace / "calls.txt"
        with calls.open("a") as stream:
            stream.write(f"{self._name} {self._run}\n")
        codes = wish.get("codes", []) if isinstance(wish, dict) else []
        tries = calls.read_text().count(f"{self._name} ")
        if tries <= len(codes):
            if codes[tries - 1] == 4:
                _move_state(self._line)
            return codes[tries - 1], f"retain step: {self._name} cannot go on"
        self._succeed(None if isinstance(wish, dict) else wish)
        return 0, f"{self._name}: done"

    def end(self) -> None:
        pass

    def _succeed(self, verdict: str | None) -> None:
        if STEPS[self._name] in STAGES:
            _stage(self._line, self._run, self._name, verdict)
        elif self._name == "promote":
            _promote(self._line, self._run)
        else:
            close.run(self._line, self._run)


def _stage(line: Line, run: str, name: str, verdict: str | None) -> None:
    with checked_out(line, run) as root:
        write_report(root, name, run, StepReport(verdict, f"{name} says {verdict}", FIGURES.get(name, {})))
        push_branch(root, line, run, f"{name}: done")


def _promote(line: Line, run: str) -> None:
    with checked_out(line, run) as root, reading(line.git) as main:
        event = event_bytes(run_event(run_state(root), "promoted", "better", "v2"))
        digests = {"state": {"adapter": f"{'a' * 32}.dir"}, "base": f"{'b' * 32}.dir"}
        record = {"version": "v2", "parent": "v1", "run": run, "created": now(), "digests": digests}
        files = {event_path("run", run): event, "versions/v0002.json": json_text(whole_record(record)).encode()}
        assert main.push(Change(files, "promote v2"))


def _move_state(line: Line) -> None:
    with reading(line.git) as main:
        assert main.push(
            Change({"state/champion.json": json.dumps(whole_champion("v9")).encode()}, "another run was faster")
        )


def main(arguments: Sequence[str]) -> int:
    """The same as a process of its own, that takes `RETAIN_STUB_SECONDS` longer than it has to."""
    time.sleep(float(os.environ.get("RETAIN_STUB_SECONDS", "0.3")))
    code, said = StubChild(arguments, os.environ).run()
    print(said)
    return code
