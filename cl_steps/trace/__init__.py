"""Where did an image go, what made a version, what changed between two? Derived, and never the truth."""
