"""The lines of `lines.yaml` that have no DAG: an import error of this file, which Airflow shows above its list of DAGs.

It holds no DAG itself. What is wrong with one line must not be an error of `lines.py`: Airflow takes every DAG of a
file with an error out of its schedule.
"""

from __future__ import annotations

from cl_steps.errors import UsageError
from dags.faults import faults, sentence
from dags.registry import Reading, lines_file, read


def check() -> None:
    """Raise UsageError where a part of `lines.yaml` cannot be read; where it is none at all, every file says so."""
    try:
        found = read(lines_file())
    except UsageError:
        found = Reading()
    if wrong := faults(found):
        raise UsageError(sentence(wrong))


check()
