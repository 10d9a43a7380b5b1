"""Replay: half of each step are items that the line knows, and their denoising loss counts as much as the new ones'.

Which items a line keeps is `data.replay`.
"""

from __future__ import annotations

from cl_steps.learning.methods.method import Method

METHOD = Method("Experience replay: Chaudhry et al., On Tiny Episodic Memories, arXiv 1902.10486", replays=True)
