"""Statistics that decide: two-sample tests, kernel distances, paired comparison."""
