"""Airflow: how do lines become DAGs, how does a step run there, who is asked and told?

Ways in: `line_dag` (a DAG a line), `runners` (a process or a pod), `light` (tasks of Git only), `serve`, `reap`. The
files that Airflow reads are in `dags/`. Nothing here imports torch, DVC or Evidently, and no result goes from task to
task.
"""
