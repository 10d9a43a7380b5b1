"""Whole undertakings on a line: what is a night, a new line, a backup from beginning to end?

Ways in: `begin`, `play`, `reproduce` and `replay`, `publish`, `prune`, `backup`, `page`; commands and Airflow call
them. They raise errors and say how far they are, and know nothing of arguments, exit codes or tables on a terminal.
"""
