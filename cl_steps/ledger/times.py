"""What each step of a run took: `reports/times.json` on the run's branch, apart from the reports, which hold no times.

    {"update": {"seconds": 812.4, "device": "cuda", "name": "NVIDIA H200", "processes": 2, "gpu_seconds": 1624.8}}

Seconds are those of the wall, clone and transfers included; a step that ran again adds to what it took before.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cl_steps.config import Compute
from cl_steps.documents import write_json
from cl_steps.errors import IntegrityError
from cl_steps.ledger.reports import read_small
from cl_steps.pipeline import Step

FILE = "reports/times.json"
NUMBERS = ("seconds", "gpu_seconds")
Times = dict[str, dict[str, Any]]


def read_times(root: Path) -> Times:
    """Step name to what it took; none where nothing was written. Raises IntegrityError where it is no such table."""
    found = read_small(root / FILE) if (root / FILE).is_file() else {}
    for name, spent in found.items() if isinstance(found, dict) else [("it", None)]:
        numbers = [spent.get(key) for key in NUMBERS] if isinstance(spent, dict) else [None]
        if not all(isinstance(number, int | float) and number >= 0 for number in numbers):
            raise IntegrityError(f"{FILE} does not say what {name!r:.80} took: trigger a new run")
    return dict(found)


def add_time(root: Path, step: str, seconds: float, device: Mapping[str, str], processes: int = 1) -> None:
    """Add what one try of a step took on the device that `device_of` gave."""
    times = read_times(root)
    before = times.get(step, {})
    seconds = max(0.0, seconds)
    spent = seconds * processes if device["device"] == "cuda" else 0.0
    times[step] = {
        "seconds": round(before.get("seconds", 0.0) + seconds, 1),
        **device,
        "processes": processes,
        "gpu_seconds": round(before.get("gpu_seconds", 0.0) + spent, 1),
    }
    write_json(root / FILE, times)


def gpu_seconds(times: Times) -> float:
    """GPU-seconds of all steps together."""
    return round(sum(float(spent["gpu_seconds"]) for spent in times.values()), 1)


def device_of(step: Step, compute: Compute) -> dict[str, str]:
    """Where a step that just ran has computed, and the name of a GPU; a step that loaded no torch used the CPU."""
    torch = sys.modules.get("torch")
    if "compute" not in step.params or compute.device == "cpu" or torch is None or not torch.cuda.is_available():
        return {"device": "cpu"}
    return {"device": "cuda", "name": str(torch.cuda.get_device_name())}
