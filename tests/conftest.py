"""Fixtures for every test: no network, no telemetry, no files of the user."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

os.environ.update({"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "MPLBACKEND": "Agg"})


@pytest.fixture(autouse=True)
def _no_file_system_of_another_test() -> Iterator[None]:
    """fsspec keeps opened file systems: a test's S3 must not be the server of a test before it."""
    yield
    if "s3fs" in sys.modules:
        sys.modules["s3fs"].S3FileSystem.clear_instance_cache()
