"""Learning without forgetting (Li and Hoiem, arXiv 1606.09282, eq. 2): distillation from the champion on the new items.

It needs no old ones. The paper's outputs for old classes are here what the champion predicts for the new pictures.
"""

from __future__ import annotations

from cl_steps.learning.methods.distillation import Distillation, Knobs
from cl_steps.learning.methods.method import Made, Method

METHOD = Method(
    "Learning without forgetting: Li and Hoiem, arXiv 1606.09282, eq. 2, on the new items",
    Knobs,
    lambda knobs, *_: Made(terms=(Distillation(knobs.weight, "lwf", "new"),)),
    teaches=True,
)
