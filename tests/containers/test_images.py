"""Builds an image and runs it as a pod does. It takes minutes and an engine, so it runs only where a base is named:

RETAIN_IMAGE_BASE=docker.io/library/python:3.11-slim-bookworm@sha256:... pytest tests/containers/test_images.py
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

CONTAINERS = Path(__file__).parents[2] / "containers"
BASE = os.environ.get("RETAIN_IMAGE_BASE", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BASE, reason="RETAIN_IMAGE_BASE names no base to build on"),
]


@pytest.mark.parametrize("image", ["airflow", "steps"])
def test_an_image_is_built_and_runs_as_a_pod_runs_it(image: str) -> None:
    tag = f"localhost/retain-{image}:tested"
    subprocess.run([CONTAINERS / "build", image, "--base", BASE, "--tag", tag], check=True)
    done = subprocess.run([CONTAINERS / "smoke", image, "--tag", tag], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
