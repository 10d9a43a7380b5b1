"""The methods by name, and several of them as one.

A method is a file of this folder; `config.PRESETS` has the usual sets. Whatever is named, the loop sees a `Methods`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

from cl_steps.config import METHOD_NAMES, Block, Update, methods_of, validate_block
from cl_steps.errors import UsageError
from cl_steps.learning.methods.method import Made, Method, Tensors, Trainee
from cl_steps.learning.pools import Pool

Kept = Mapping[str, Tensors]
"""What a version keeps, by method."""


@dataclass(frozen=True)
class Methods:
    """A set of methods with their knobs."""

    members: Mapping[str, tuple[Method, Block]]
    is_rebase: bool = False

    @classmethod
    def of(cls, update: Update) -> Methods:
        """Those that `update.method` names, with what `update.methods` says of them.

        Raises:
            UsageError: a knob that a method does not have, or a wrong value.
        """
        members = {name: method(name) for name in methods_of(update.method)}
        said = {name: dict(update.methods.get(name, {})) for name in members}
        return cls(
            {
                name: (found, validate_block(found.knobs, said[name], f"update.methods.{name}"))
                for name, found in members.items()
            }
        )

    @property
    def replays(self) -> bool:
        """Whether each step has rows that the line knows."""
        return any(found.replays for found, _ in self.members.values())

    @property
    def remembers(self) -> bool:
        """Whether a method needs such rows, replayed or not."""
        return self.replays or any(found.remembers for found, _ in self.members.values())

    @property
    def teaches(self) -> bool:
        """Whether the champion is a teacher."""
        return any(found.teaches for found, _ in self.members.values())

    @property
    def are_even(self) -> bool:
        """Whether each process computes as many rows as the others: not where a method looks at rows of its own."""
        return not any(own.remembers or own.keep or own.schedules for own, _ in self.members.values())

    @property
    def guarded(self) -> bool:
        """Whether the guard may go back: not where nothing is done against forgetting, which is there to show it."""
        return bool(self.members) or self.is_rebase

    def begin(self, trainee: Trainee, kept: Kept) -> Kept:
        """What the version before kept; where that is nothing, it is made now from what the line knows."""
        found = dict(kept)
        for name, (own, knobs) in self.members.items():
            if own.keep and not kept.get(name) and len(trainee.pools.old):
                found[name] = own.keep(knobs, trainee, trainee.pools.old, {})
        return found

    def make(self, trainee: Trainee, kept: Kept) -> Made:
        """What they are for a night."""
        made = [own.make(knobs, trainee, kept.get(name, {})) for name, (own, knobs) in self.members.items()]
        stages = [one.stages for one in made if one.stages]
        if len(stages) > 1:
            raise UsageError("update.method names two methods that say what a step looks at: leave one")
        return Made(
            tuple(term for one in made for term in one.terms),
            tuple(rule for one in made for rule in one.rules),
            stages[0] if stages else (),
            math.prod(one.replayed for one in made),
        )

    def keep(self, trainee: Trainee, learnt: Pool, kept: Kept) -> Kept:
        """What the version keeps that has just learnt."""
        return {
            name: found.keep(knobs, trainee, learnt, kept.get(name, {}))
            for name, (found, knobs) in self.members.items()
            if found.keep
        }


NONE = Methods({})
"""Plain training: what everybody does, and it forgets."""
REBASE = Methods({}, is_rebase=True)
"""What a rebase does, whatever the line's method is: all it has to learn is old, and nobody on the new base teaches."""


def method(name: str) -> Method:
    """A method by the name of its file."""
    assert name in METHOD_NAMES
    found: Method = import_module(f"cl_steps.learning.methods.{name}").METHOD
    return found
