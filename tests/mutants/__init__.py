"""Deliberate faults in the code that decides, and whether a test notices: `make test-mutants`."""
