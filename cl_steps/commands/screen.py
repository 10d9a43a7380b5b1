"""What a long play shows: in a terminal one status line that lives, elsewhere a line a step and one now and then."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections import deque
from typing import TextIO

LINES_KEPT = 30
MAX_CHARACTERS = 160
TICK_SECONDS = 0.5
SECONDS_BETWEEN_LINES = 30.0
UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\uffff]|[\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Screen:
    """The lines of a play; safe to call from any thread."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._lock = threading.Lock()
        self._label, self._note = "", ""
        self._began = self._spoken = 0.0
        self.latest: deque[str] = deque(maxlen=LINES_KEPT)
        """The last lines that the step in progress, or the last one, printed."""
        threading.Thread(target=self._tick, daemon=True).start()

    def began(self, label: str) -> None:
        """Something begins that takes a while."""
        with self._lock:
            self._label, self._note = label, ""
            self._began = self._spoken = time.monotonic()
            self.latest.clear()
        self._show()

    def said(self, line: str) -> None:
        """What is in progress printed a line."""
        printable = UNPRINTABLE.sub("?", line)[:MAX_CHARACTERS]
        self.latest.append(printable)
        self._note = printable.strip() or self._note

    def ended(self, word: str = "") -> None:
        """It ended, with a word about how."""
        with self._lock:
            label, self._label = self._label, ""
        if label:
            self.line(f"{label:<24}{time.monotonic() - self._began:6.1f} s  {word}".rstrip())

    def line(self, text: str) -> None:
        """A line that stays."""
        with self._lock:
            self._stream.write(f"{self._clear()}{text}\n")
            self._stream.flush()

    def _clear(self) -> str:
        return "\r\x1b[2K" if self._live else ""

    def _tick(self) -> None:
        while True:
            time.sleep(TICK_SECONDS)
            self._show()

    def _show(self) -> None:
        with self._lock:
            now = time.monotonic()
            due = self._live or now - self._spoken >= SECONDS_BETWEEN_LINES
            if not self._label or not due:
                return
            self._spoken = now
            text = f"{self._label:<24}{now - self._began:6.1f} s  {self._note}".rstrip()
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"{self._clear()}{text[:width]}" if self._live else f"{text}\n")
            self._stream.flush()
