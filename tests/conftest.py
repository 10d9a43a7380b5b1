"""Fixtures for every test: no network, no telemetry, no files of the user."""

from __future__ import annotations

import os

os.environ.update({"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "MPLBACKEND": "Agg"})
