"""The command line: one command, one function, which `__main__` names in its table.

A command reads its arguments, calls `operations/`, `acts/`, `trace/` or `verify/`, and prints. What is worth a test
without a terminal belongs there, not here.
"""
