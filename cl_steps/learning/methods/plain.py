"""Methods that add no term to the loss: replay alone, and what it is compared with."""

from __future__ import annotations

from cl_steps.learning.methods.method import Method

REPLAY = Method(replays=True, guarded=True)
FINETUNE = Method(replays=False, guarded=False)
"""The naive baseline: what everybody does, and it forgets."""
REBASE = Method(replays=False, guarded=True)
"""What a rebase does, whatever the line's method is: all it has to learn is old, and nobody on the new base teaches."""
