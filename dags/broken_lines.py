"""The lines of `lines.yaml` that have no DAG: an import error of this file, which Airflow shows above its list of DAGs.

It holds no DAG itself. What is wrong with one line must not be an error of `lines.py`: Airflow takes every DAG of a
file with an error out of its schedule.
"""

from __future__ import annotations

from cl_steps.errors import UsageError
from cl_steps.orchestration.faults import faults, sentence
from cl_steps.orchestration.registry import Reading, lines_file, read


def found() -> Reading:
    """What `lines.yaml` says; where it is none at all, every other file that reads it says so."""
    try:
        return read(lines_file())
    except UsageError:
        return Reading()


if wrong := faults(found()):
    raise UsageError(sentence(wrong))
