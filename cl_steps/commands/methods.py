"""`retain methods`: the remedies against forgetting that `update.method` may name, and their knobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cl_steps.config import METHOD_NAMES, PRESETS
from cl_steps.documents import Document
from cl_steps.learning.methods.catalogue import method


def methods(json: bool) -> Document | str:
    """Each method with its source, what it needs, and its knobs as they are unless `update.methods` says otherwise."""
    document: Document = {
        "methods": {name: _facts(name) for name in METHOD_NAMES},
        "presets": {name: list(members) for name, members in PRESETS.items()},
    }
    return document if json else "\n".join(_lines(document))


def _facts(name: str) -> dict[str, Any]:
    found = method(name)
    knobs = found.knobs().model_dump(mode="json")
    about = (found.knobs.__doc__ or "").strip()
    return {
        "paper": found.paper,
        "replays": found.replays,
        "remembers": found.remembers,
        "teaches": found.teaches,
        "keeps": found.keep is not None,
        "knobs": knobs,
        "about": about if knobs else "",
    }


def _lines(document: Document) -> Iterator[str]:
    for name, facts in document["methods"].items():
        yield f"{name}: {facts['paper']}"
        words = {"replays": "replays", "remembers": "looks at replayed items", "teaches": "has the champion teach"}
        does = [words[key] for key in words if facts[key]] + (["keeps something with each version"] * facts["keeps"])
        if does:
            yield f"    {', '.join(does)}"
        for knob, value in facts["knobs"].items():
            yield f"    update.methods.{name}.{knob}: {value}"
        if facts["about"]:
            yield f"    {facts['about']}"
    yield ""
    yield "usual sets, for update.method:"
    for name, members in document["presets"].items():
        yield f"    {name}: {', '.join(members) or 'none of them'}"
