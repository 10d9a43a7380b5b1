"""Git: what is on a workspace's branches, and how is `main` changed?

Ways in: `mainline` (read main; change it by compare-and-swap only), `run_branch` and `beginning` (a run as branches),
`history`, `bundle`, `line` (where a line's places are). Git is called here and nowhere else. DVC's files are read as
text: no byte of the store is moved, and DVC is not imported, so that Airflow's light tasks may use all of it.
"""
