"""What the command line does: one command, one function."""
