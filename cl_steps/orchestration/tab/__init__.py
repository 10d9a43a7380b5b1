"""The tab of Airflow's web interface that shows the lines' pages."""
