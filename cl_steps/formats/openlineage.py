"""Tells OpenLineage, where it is configured, of every step: START, then COMPLETE, FAIL or ABORT.

It is configured as OpenLineage's own clients are: OPENLINEAGE_URL, OPENLINEAGE_CONFIG or OPENLINEAGE__TRANSPORT__*; a
file `openlineage.yml` in a folder where a step happens to run is not looked at, since a workspace could bring one.
Nothing configured: nothing is imported. Whatever happens here, the step goes on: events are built and sent by a thread
of their own, which the step waits for no longer than `BUDGET_SECONDS` in all, and one line says what was not sent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, Literal

from cl_steps.errors import RetainError, first_line
from cl_steps.pipeline import STAGES, Step
from cl_steps.progress import say
from cl_steps.repository.line import Line
from cl_steps.run.machine import Machine

BUDGET_SECONDS = 5.0
"""How long a step waits for its events, all together."""
OFFLINE = "RETAIN_OFFLINE"
"""Set where a run may use no network: then events go to files only."""
VARIABLES = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG")
PREFIX = "OPENLINEAGE__TRANSPORT__"

_REHEARSAL = ContextVar("rehearsal", default=False)
Kind = Literal["START", "COMPLETE", "FAIL", "ABORT"]


def configured(environ: Mapping[str, str]) -> bool:
    """Whether anybody wants to hear of steps."""
    if environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    return any(environ.get(name) for name in VARIABLES) or any(name.startswith(PREFIX) for name in environ)


@contextmanager
def observed(line: Line, run: str, step: Step) -> Iterator[None]:
    """Within it a step of a run happens; what it raises is told and goes on its way."""
    if _REHEARSAL.get() or not configured(os.environ) or _helps(step):
        yield
        return
    teller = _Teller(line, run, step)
    try:
        teller.tell("START")
        yield
    except BaseException as error:
        teller.tell("FAIL" if isinstance(error, Exception) else "ABORT", error)
        raise
    else:
        teller.tell("COMPLETE")
    finally:
        teller.end()


@contextmanager
def rehearsal() -> Iterator[None]:
    """Within it steps are played again elsewhere, and nobody hears of them: they are not the line's."""
    token = _REHEARSAL.set(True)
    try:
        yield
    finally:
        _REHEARSAL.reset(token)


def _helps(step: Step) -> bool:
    """Whether another node tells of this step."""
    return step in STAGES and Machine.of(os.environ).only_helps


class _Teller:
    """The thread that tells, and what is left of the time that a step waits for it."""

    def __init__(self, line: Line, run: str, step: Step) -> None:
        self._line, self._run, self._step = line, run, step
        self._began = _now()
        self._left, self._trouble = BUDGET_SECONDS, ""
        self._tasks: SimpleQueue[tuple[Callable[[Any], None], Event] | None] = SimpleQueue()
        # A daemon: a transport that hangs must not keep the process alive.
        Thread(target=self._work, name="openlineage", daemon=True).start()

    def tell(self, kind: Kind, error: BaseException | None = None) -> None:
        """Have one thing told, and wait for it as long as there is time."""
        moment, name = _now(), "" if error is None else _kind_of(error)
        self._do(lambda sender: sender.tell(self._line, self._run, self._step, kind, (self._began, moment), name))

    def end(self) -> None:
        """Have the rest sent, and say what could not be told."""
        done = self._do(lambda sender: sender.close(max(0.1, self._left)))
        self._tasks.put(None)
        if not done:
            self._trouble = self._trouble or f"not done within {BUDGET_SECONDS:.0f} s"
        if self._trouble:
            say(f"{self._step.name}: not all OpenLineage events were sent: {self._trouble}")

    def _do(self, task: Callable[[Any], None]) -> bool:
        done, began = Event(), time.monotonic()
        self._tasks.put((task, done))
        finished = done.wait(max(0.0, self._left))
        self._left -= time.monotonic() - began
        return finished

    def _work(self) -> None:
        sender: Any = None
        while asked := self._tasks.get():
            task, done = asked
            try:
                if sender is None:
                    from cl_steps.formats.openlineage_sender import Sender

                    sender = Sender(offline=bool(os.environ.get(OFFLINE)))
                task(sender)
            except Exception as error:  # of a transport, a configuration, a remote: none of them is the step's
                self._trouble = self._trouble or f"{type(error).__name__}: {first_line(error):.200}"
            done.set()


def _kind_of(error: BaseException) -> str:
    """What may be told of an error: its kind. Its words may hold captions, reasons, or a URL with a password."""
    if not isinstance(error, RetainError):
        return type(error).__name__
    return f"{type(error).__name__}: {(type(error).__doc__ or '').strip()}"


def _now() -> str:
    return datetime.now(UTC).isoformat()
