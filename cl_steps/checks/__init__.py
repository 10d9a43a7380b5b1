"""The checks of the gate as a pytest suite, and the sandbox in which it and the user's own checks run.

Ways in: `test_gate` (ours), `own` and `sandbox` (the user's `checks/test_*.py`). A check sees figures and samples,
read-only; it has no network, no credentials, and no say but to add a failure.
"""
