"""What several tests begin with is made once a test run, by whichever process needs it first."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE, BEGUN_BY = "TESTS_MADE_ONCE", "TESTS_BEGUN_BY"
if VARIABLE not in os.environ:
    # The process that begins it all; those that it starts find its folder.
    os.environ[VARIABLE] = tempfile.mkdtemp(prefix="retain-tests-")
    os.environ[BEGUN_BY] = str(os.getpid())
    atexit.register(shutil.rmtree, os.environ[VARIABLE], ignore_errors=True)
PLACE = Path(os.environ[VARIABLE])


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name`, made by `make`, which is given a folder that is not there yet; copy it, and leave it as it is.

    It is there whole or not at all, and must not name its own place.
    """
    folder = PLACE / name
    with alone(name):
        if not folder.is_dir():
            draft = PLACE / f"{name}.draft"
            shutil.rmtree(draft, ignore_errors=True)
            make(draft)
            draft.rename(folder)
    return folder


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Of the processes of a test run one at a time gets here, for each name."""
    with (PLACE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
