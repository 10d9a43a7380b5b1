"""Fifty nights at once on one scheduler: every one ends as it has to, nothing is lost and nothing done twice."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.dags.nights import play
from tests.dags.postgres import postgres, why_not

LINES = 50
MOST_BYTES = 6 * 2**30


@pytest.mark.slow
def test_fifty_nights_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # This process has an Airflow of its own, which is none of theirs.
    for name in [name for name in os.environ if name.startswith(("AIRFLOW", "RETAIN"))]:
        monkeypatch.delenv(name)
    with nullcontext("") if why_not() else postgres() as database:
        figures = play(tmp_path, LINES, database)
    assert figures.nights == LINES
    assert figures.peak_bytes < MOST_BYTES
