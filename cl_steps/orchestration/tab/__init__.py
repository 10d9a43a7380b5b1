"""The tab of Airflow's web interface that shows the lines' pages.

`plugin` is what Airflow loads, `pages` serves what `retain report` wrote. It makes no page and reads no workspace.
"""
