"""A curriculum: what a step looks at, stage by stage of a night (Bengio et al., Curriculum Learning, ICML 2009).

For example style before structure, and what is nearest to the known first:

    curriculum:
      stages:
        - {until: 0.3, band: [0.5, 1.0], nearest: 0.5}    # much noise, in which colours and layout are decided
        - {until: 1.0, new: 0.5}
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from cl_steps.config import Block
from cl_steps.learning.methods.method import Made, Method
from cl_steps.learning.plan import Stage

Quantile = Annotated[float, Field(ge=0, le=1)]
Part = Annotated[float, Field(gt=0, le=1)]


class Row(Block):
    """A stage; see `plan.Stage`."""

    until: Part = 1.0
    new: Part = 0.5
    band: tuple[Quantile, Quantile] = (0.0, 1.0)
    nearest: Part = 1.0
    layers: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()

    @model_validator(mode="after")
    def _rising(self) -> Row:
        if self.band[0] >= self.band[1]:
            raise ValueError("band must rise, for example [0.5, 1.0]")
        return self


class Knobs(Block):
    """At least one stage; `until` is a share of the steps."""

    stages: Annotated[tuple[Row, ...], Field(min_length=1, max_length=50)] = (Row(),)

    @model_validator(mode="after")
    def _whole(self) -> Knobs:
        ends = [stage.until for stage in self.stages]
        if ends != sorted(set(ends)) or ends[-1] != 1:
            raise ValueError("the stages' until must rise to 1, for example 0.3 and 1.0")
        return self


METHOD = Method(
    "Curriculum learning: Bengio et al., ICML 2009; a table of stages",
    Knobs,
    lambda knobs, *_: Made(stages=tuple(Stage(**dict(stage)) for stage in knobs.stages)),
    schedules=True,
)
