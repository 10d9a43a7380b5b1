"""The methods that `update.method` can name. `config.Update` has the same names, since it is read without torch."""

from __future__ import annotations

from collections.abc import Mapping

from cl_steps.learning.methods.distillation import REPLAY_DISTILL
from cl_steps.learning.methods.method import Method
from cl_steps.learning.methods.plain import FINETUNE, REPLAY

METHODS: Mapping[str, Method] = {
    "replay_distill": REPLAY_DISTILL,
    "replay": REPLAY,
    "finetune": FINETUNE,
}
