"""Airflow: lines and their DAGs, how a step runs there, who is asked and told. The DAG files are in `dags/`.

Nothing here imports torch, DVC or Evidently.
"""
