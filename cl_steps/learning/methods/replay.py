"""Replay: half of each step are items that the line knows, and their denoising loss counts beside the new ones'.

Which items a line keeps is `data.replay`.
"""

from __future__ import annotations

from cl_steps.config import Amount, Block
from cl_steps.learning.methods.method import Made, Method


class Knobs(Block):
    """How much their denoising loss counts; with 0 a step only compares on them, as distillation does."""

    weight: Amount = 1.0


METHOD = Method(
    "Experience replay: Chaudhry et al., On Tiny Episodic Memories, arXiv 1902.10486",
    Knobs,
    lambda knobs, *_: Made(replayed=knobs.weight),
    replays=True,
)
