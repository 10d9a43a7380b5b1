"""`retain prune`: old runs that came to nothing go, and with them what the store holds for nobody else."""

from __future__ import annotations

from typing import Any

from cl_steps.commands.wording import byte_size
from cl_steps.documents import Json
from cl_steps.operations import prune as pruning
from cl_steps.repository.line import resolve


def prune(dir: str, days: float, dry_run: bool, json: bool) -> dict[str, Any] | str:
    """Let go of runs that ended more than `days` ago; raises as `operations.prune.prune` does."""
    document = pruning.prune(resolve(dir), days, dry_run)
    return document if json else _text(document)


def _text(document: Json) -> str:
    runs, objects = document["runs"], f"{document['objects']} objects ({byte_size(document['bytes'])})"
    if document["dry_run"]:
        words = f"would go: {len(runs)} runs ({', '.join(runs) or 'none'}) and {objects}"
    else:
        words = f"gone: {len(runs)} runs, whose reports are in the branch archive, and {objects}"
    if document["young_objects"]:
        size = byte_size(document["young_bytes"])
        words += f"; {document['young_objects']} more ({size}) stay for a day after their making"
    return words
