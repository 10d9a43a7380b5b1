"""The checks of the gate as a pytest suite, and the closed room in which it and the user's own checks run."""
