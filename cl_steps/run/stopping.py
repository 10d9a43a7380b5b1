"""An orderly end on SIGTERM, which is how a pod is evicted: as PID 1 of a container a process that does not ask for the
signal would not even notice it. And what a person is told of how to go on, after that or after Ctrl+C.

Outside the main thread no signal can be caught: there both do nothing.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_ASKED = threading.Event()
EXIT_TERMINATED = 128 + signal.SIGTERM
GRACE_SECONDS = 8.0
"""How long threads (an upload, say) may hold up the end."""


@contextmanager
def stopping(what: str) -> Iterator[None]:
    """Within it SIGTERM raises SystemExit with status 143, and the process ends within `GRACE_SECONDS`.

    What is half done is undone by what the exception passes through; nothing is shared before it is whole. Libraries
    turn the exception into another where it meets them while they are imported: the status is 143 all the same.
    """
    last = threading.Timer(GRACE_SECONDS, os._exit, (EXIT_TERMINATED,))
    last.daemon = True

    def stop(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _ASKED.set()
        os.write(2, f"{what}: asked to stop\n".encode())  # `print` must not be called while it runs already
        last.start()
        raise SystemExit(EXIT_TERMINATED)

    _ASKED.clear()
    with _handled(stop):
        try:
            yield
        except Exception as error:
            if last.is_alive():
                raise SystemExit(EXIT_TERMINATED) from error
            raise


def asked_to_stop() -> bool:
    """Whether SIGTERM came while this process was `stopping`; a library may have made another error of it."""
    return _ASKED.is_set()


@contextmanager
def goes_on_with(command: str) -> Iterator[None]:
    """Within it whatever ends the work too early tells the command that really goes on."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"`{command}` goes on")
        raise


def how_to_go_on(error: BaseException) -> list[str]:
    """What `goes_on_with` noted."""
    return [note for note in getattr(error, "__notes__", ()) if note.endswith("` goes on")]


@contextmanager
def termination() -> Iterator[threading.Event]:
    """Within it SIGTERM sets the event and nothing else, so that the work can stop where it is whole."""
    asked = threading.Event()

    def ask(_signal: int, _frame: FrameType | None) -> None:
        asked.set()

    with _handled(ask):
        yield asked


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
            signal.signal(signal.SIGTERM, before)
