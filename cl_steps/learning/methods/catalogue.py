"""The methods that `update.method` can name, each as what it is made of.

A new method is a file with a `Penalty` and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cl_steps.config import Update
from cl_steps.learning.methods.distillation import Distillation
from cl_steps.learning.methods.penalty import Penalty


@dataclass(frozen=True)
class Method:
    """Whether old items are replayed, which terms are added to the loss, and whether the guard may back off."""

    replays: bool
    guarded: bool
    teaches: bool = False
    penalties: Callable[[Update], tuple[Penalty, ...]] = lambda _: ()


METHODS: Mapping[str, Method] = {
    "replay_distill": Method(
        replays=True,
        guarded=True,
        teaches=True,
        penalties=lambda update: (Distillation(update.distillation_weight),),
    ),
    "replay": Method(replays=True, guarded=True),
    "finetune": Method(replays=False, guarded=False),  # the naive baseline: what everybody does, and it forgets
}
REBASE = Method(replays=False, guarded=True)
"""What a rebase does, whatever the line's method is: all it has to learn is old, and nobody on the new base teaches."""
