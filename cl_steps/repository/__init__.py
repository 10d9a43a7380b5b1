"""A workspace as a Git repository: main, changed by compare-and-swap only; the branches of runs; history; bundles.

Git is called here and nowhere else; DVC's files are read as text, and no byte of the store is moved.
"""
