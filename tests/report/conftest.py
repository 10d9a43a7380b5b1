"""One fabricated line for all tests of this folder, with a script in every text that a step or a person may write."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cl_steps.report.collect import collect
from cl_steps.report.overview import Overview
from cl_steps.repository.line import Line
from tests.report.fabricate import fabricate

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>{{7*7}} $\\alpha$ &amp;'


@pytest.fixture(scope="session")
def hostile_line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """A line whose texts are all hostile; not to be changed."""
    return fabricate(tmp_path_factory.mktemp("hostile"), HOSTILE)


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """A line as it should be; not to be changed."""
    return fabricate(tmp_path_factory.mktemp("line"))


@pytest.fixture(scope="session")
def overview(line: Line) -> Overview:
    """The line's overview with all pictures."""
    return collect(line, nights_with_pictures=20)


@pytest.fixture
def own_store(line: Line, tmp_path: Path) -> Line:
    """The line with a copy of its store, to be changed."""
    shutil.copytree(line.store, tmp_path / "store")
    return Line(line.git, str(tmp_path / "store"), "", "")
