"""One Airflow DAG a line of `lines.yaml`; `cl_steps/orchestration/line_dag.py` says what is in it."""

from cl_steps.orchestration.line_dag import build_all

globals().update(build_all())
