"""What a night drew, as its folder: `prompts.json`, and a grid of pictures for each slice and model beside it.

`prompts.json` is `{slice: [{"prompt", "seed"}]}`, in the order of the pictures in `grid-<slice>-<model>.png`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path

from cl_steps.documents import write_json
from cl_steps.stats.figures import MODELS

PROMPTS = "prompts.json"
SAMPLE_FILES = ("grid-*.png", PROMPTS)


def grid_file(slice_name: str, model: str) -> str:
    """The file of a slice's pictures by a model."""
    return f"grid-{slice_name}-{model}.png"


def grids(slices: Iterable[str]) -> set[str]:
    """The files of all pictures of those slices."""
    return {grid_file(name, model) for name in slices for model in MODELS}


def slices_drawn(content: bytes, words: AbstractSet[str]) -> list[str]:
    """The slices of a `prompts.json` that have a prompt among the words; none where it is no such file."""
    if not words or not content.startswith(b"{"):
        return []
    try:
        prompts = {name: {item["prompt"] for item in items} for name, items in json.loads(content).items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return []
    return [name for name, found in prompts.items() if not words.isdisjoint(found)]


def forget_drawn(path: Path, words: AbstractSet[str]) -> None:
    """Take the slices that were drawn from one of the words out of a `prompts.json` and its folder."""
    content = path.read_bytes()
    slices = slices_drawn(content, words)
    if slices:
        write_json(path, {name: found for name, found in json.loads(content).items() if name not in slices})
        # Names are compared and no path is made of them: a slice may be called anything.
        for file in [file for file in path.parent.iterdir() if file.name in grids(slices)]:
            file.unlink()
