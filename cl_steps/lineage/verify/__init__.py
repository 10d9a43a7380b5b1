"""The verification of a line: `whole` says what is checked, and where."""
