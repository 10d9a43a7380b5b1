"""What is measured: which held-out images, which prompts, and from which seeds, all fixed by the seed plan.

A seed plan is a string; every choice is a hash of it and of the thing chosen, so that it depends neither on order nor
on what else there is, and all models see the same. The plan changes with every promotion.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

from cl_steps.documents import Json

FEW_PROMPTS = 12
"""With fewer distinct prompts than this, they *are* the slice: the unit is then a draw and no longer a prompt."""
KEY_CHARACTERS = 16


@dataclass(frozen=True)
class SliceSet:
    """A slice's held-out rows (columns of the manifest) and its distinct prompts, in the order they are drawn from."""

    name: str
    rows: tuple[Json, ...]
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class Draw:
    """One sample to be drawn: its unit and number within the unit, the prompt and the seed."""

    unit: str
    number: int
    prompt: str
    seed: int


def seed_plan(seed: int, plan: int) -> str:
    """The plan of one champion: from the line's seed and the champion's number."""
    return f"retain-evaluation:{seed}:{plan}"


def derived_seed(plan: str, *names: object) -> int:
    """A seed of 63 bits for the thing named."""
    digest = hashlib.sha256("\0".join([plan, *map(str, names)]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def choose(rows: Iterable[Json], plan: str, images_per_slice: int) -> dict[str, SliceSet]:
    """By slice, at most `images_per_slice` evaluation rows that are not sealed: those of the smallest hashes."""
    groups: dict[str, list[Json]] = {}
    for row in rows:
        if row["split"] == "evaluation" and not row["sealed"]:
            groups.setdefault(row["slice"], []).append(row)
    return {name: _slice_set(name, group, plan, images_per_slice) for name, group in sorted(groups.items())}


def draws(group: SliceSet, plan: str, look: int) -> list[Draw]:
    """The samples that a look at `look` prompts asks for; a later look's hold an earlier one's.

    With fewer prompts than `look`, each is drawn from several seeds, as many times as it takes to reach it.
    """
    prompts = group.prompts[:look]
    repeats = math.ceil(look / len(prompts)) if prompts else 0
    return [_draw(group, plan, prompt, number) for prompt in prompts for number in range(repeats)]


def _slice_set(name: str, group: list[Json], plan: str, most: int) -> SliceSet:
    chosen = sorted(group, key=lambda row: derived_seed(plan, "image", row["sha256"]))[:most]
    prompts = sorted({row["text"] for row in chosen}, key=lambda text: derived_seed(plan, "prompt", text))
    return SliceSet(name, tuple(sorted(chosen, key=lambda row: str(row["sha256"]))), tuple(prompts))


def prompt_unit(prompt: str) -> str:
    """What a prompt is called where it is a unit."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:KEY_CHARACTERS]


def _draw(group: SliceSet, plan: str, prompt: str, number: int) -> Draw:
    unit = prompt_unit(prompt)
    seed = derived_seed(plan, "sample", prompt, number)
    few = len(group.prompts) < FEW_PROMPTS
    return Draw(f"{unit}-{number:04d}", 0, prompt, seed) if few else Draw(unit, number, prompt, seed)
