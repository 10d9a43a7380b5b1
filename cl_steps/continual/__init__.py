"""Learning without forgetting: one method a file."""
