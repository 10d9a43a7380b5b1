"""Retain under Airflow: one DAG a line. Nothing here imports torch, DVC or Evidently."""
