"""Progress of long work: a bar in a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10.0


def progress(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """Pass `items` on and show on stderr how many of `total` are done."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=label, leave=False)
        return
    spoken = began = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - spoken >= SECONDS_BETWEEN_LINES:
            spoken = now
            say(f"{label}: {number} of {total}, {now - began:.0f} s")


def say(line: str) -> None:
    """One line of log, on stderr, at once."""
    print(line, file=sys.stderr, flush=True)
