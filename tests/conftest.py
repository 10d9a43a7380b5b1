"""Fixtures for every test: no network, no telemetry, no files of the user."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

import tests.once  # noqa: F401  (before any other process: they share its folder)

if TYPE_CHECKING:
    from cl_steps.repository.line import Line

os.environ.update({"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "MPLBACKEND": "Agg"})
# Matrices as small as those of tests take longer on several threads than on one.
os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})


@pytest.fixture(autouse=True)
def _no_file_system_of_another_test() -> Iterator[None]:
    """fsspec keeps opened file systems: a test's S3 must not be the server of a test before it."""
    yield
    if "s3fs" in sys.modules:
        sys.modules["s3fs"].S3FileSystem.clear_instance_cache()


@pytest.fixture(autouse=True)
def _landings_are_an_hour_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cut short in a test's landing is so for good, and not on its way."""
    monkeypatch.setattr("cl_steps.landing.folder.now", lambda: time.time() + 3600)


@pytest.fixture(autouse=True)
def _nobody_who_hears_of_another_test() -> Iterator[None]:
    """OpenLineage's client writes what it read into the environment: later steps would wait for a dead server."""
    before = set(os.environ)
    yield
    for name in set(os.environ) - before:
        if name.startswith("OPENLINEAGE"):
            del os.environ[name]


@pytest.fixture(autouse=True, scope="session")
def _yaml_parsed_once() -> Iterator[None]:
    """DVC parses a line's few YAML texts 70 times a night, in plain Python: a third of what a night costs here."""
    parse = YAML.load

    @lru_cache(maxsize=256)
    def parsed(text: str) -> Any:
        return parse(YAML(typ="safe"), text)

    def load(self: YAML, stream: Any) -> Any:
        plain = isinstance(stream, str) and self.typ == ["safe"]
        return deepcopy(parsed(stream)) if plain else parse(self, stream)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(YAML, "load", load)
        yield


@pytest.fixture
def line(tmp_path: Path) -> Line:
    """A line at its first version, without a model; folders of tests with a line of their own have their own."""
    from tests.lines.small import make_workspace

    return make_workspace(tmp_path / "line")
