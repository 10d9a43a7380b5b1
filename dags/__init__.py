"""The files that Airflow reads. What they are made of is `cl_steps.orchestration`; no torch, DVC or Evidently here."""
