"""`retain publish`: a line that keeps everything under its own `.retain/` moves to remotes that pods can reach."""

from __future__ import annotations

from pathlib import Path

from cl_steps.operations import publish as publishing
from cl_steps.operations.publish import Moved


def publish(dir: str, git: str, store: str, work: str | None, landing: str | None) -> str:
    """Move the line of the workspace `dir`; raises as `operations.publish.publish` does."""
    return _text(publishing.publish(Path(dir), git, store, work, landing))


def _text(moved: Moved) -> str:
    own, target = moved.own, moved.target
    sentence = f"the line is at {target.git} and {target.store} now; {own.git} and {own.store} may be deleted"
    left = Path(own.landing)
    if target.landing != own.landing and left.is_dir() and any(left.iterdir()):
        sentence += f"; what lies in {left} was not copied to {target.landing}: put there what is not taken in yet"
    return sentence
