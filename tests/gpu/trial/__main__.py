"""python -m tests.gpu.trial --out FILE: the whole trial in one go, on the GPU or with --miniature on a CPU."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers.utils import logging

from cl_steps.config import Compute
from cl_steps.errors import RetainError, UsageError
from cl_steps.models.loading import choose_device
from tests.gpu.trial.outcome import Trial, read, record
from tests.gpu.trial.sections import SECTIONS, Section, Setting


def main(words: Sequence[str] | None = None) -> None:
    """Run what is not done yet, or enter what was found into the scoreboard.

    Raises:
        UsageError: there is no GPU, no such section, or the file is not of this trial.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.trial")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file; where it exists, the trial goes on")
    parser.add_argument("--miniature", action="store_true", help="the same code on a CPU, in less than a minute")
    parser.add_argument("--only", default="", help=f"sections, with semicolons between: {'; '.join(SECTIONS)}")
    parser.add_argument("--minutes", type=float, default=8.5, help="how long the whole may take")
    parser.add_argument("--record", action="store_true", help="run nothing: enter the file into the scoreboard")
    given = parser.parse_args(words)
    if given.record:
        return record(read(given.out))
    if not given.miniature and not torch.cuda.is_available():
        raise UsageError("there is no CUDA device here: give --miniature")
    logging.set_verbosity_error()
    # Several threads wait for each other longer than tiny networks take.
    device = choose_device(Compute(device="cpu", threads=1) if given.miniature else Compute(device="cuda"))
    Trial(Setting(device, given.miniature), given.out).run(_chosen(given.only), 60 * given.minutes)
    return None


def _chosen(words: str) -> dict[str, Section]:
    names = [name.strip() for name in words.split(";") if name.strip()] or list(SECTIONS)
    if unknown := [name for name in names if name not in SECTIONS]:
        raise UsageError(f"the trial has no section {unknown[0]!r}: take one of {'; '.join(SECTIONS)}")
    return {name: SECTIONS[name] for name in names}


if __name__ == "__main__":
    try:
        main()
    except RetainError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
