"""A line's `dvc.yaml` and the one of today: stages that are an earlier release's become today's.

A stage that its owner wrote or changed stays as it is. What is replaced are the lines of that stage alone, so that the
owner's own comments, stages and order stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cl_steps.config import parse_mapping
from cl_steps.documents import Json
from cl_steps.errors import UsageError
from cl_steps.pipeline import STAGES

EARLIER: Mapping[str, tuple[Json, ...]] = {
    "ingest": (
        # DVC read the landing itself, and stopped at names that strangers choose.
        {
            "desc": "validate what landed, set the unusable aside with a reason, split the rest and write it as shards",
            "cmd": "retain step ingest",
            "deps": ["landing", "events", "state/reference"],
            "params": ["seed", "ingest", {"run.yaml": None}],
            "outs": ["tonight/intake", "tonight/batch"],
            "metrics": [{"reports/ingest.json": {"cache": False}}],
        },
    ),
    "update": (
        # A line learnt at the base's own size, whatever it was served at.
        {
            "desc": "learn the batch with replay and distillation: the candidate",
            "cmd": "retain step update",
            "deps": ["tonight/batch", "reports/drift.json", "state/base", "state/adapter", "state/replay"],
            "params": ["seed", "update", "compute", {"run.yaml": None}],
            "outs": ["tonight/candidate/adapter", "tonight/candidate/replay"],
            "metrics": [{"reports/update.json": {"cache": False}}],
        },
    ),
}
"""What earlier releases wrote into new workspaces where it was another than today's. Whoever changes a stage of the
shipped `dvc.yaml` puts the one before here.
"""


@dataclass(frozen=True)
class Renewed:
    """A `dvc.yaml` with today's stages: its content, which of them were replaced, and which their owner changed."""

    content: bytes
    replaced: tuple[str, ...] = ()
    own: tuple[str, ...] = ()


def renew(content: bytes, today: bytes) -> Renewed:
    """A line's `dvc.yaml`, its pipeline's stages brought to those of `today`'s.

    Raises:
        UsageError: the line's is no mapping of stages.
    """
    found, wanted = _stages(content, "main's dvc.yaml"), _stages(today, "dvc.yaml")
    replaced, own = [], []
    for name in (step.name for step in STAGES):
        stage = found.get(name)
        if stage == wanted[name]:
            continue
        changed = _replaced(content, today, name) if stage in EARLIER.get(name, ()) else None
        if changed is None:
            own.append(name)
        else:
            content = changed
            replaced.append(name)
    return Renewed(content, tuple(replaced), tuple(own))


def _stages(content: bytes, name: str) -> dict[str, Any]:
    stages = parse_mapping(content, name).get("stages")
    return stages if isinstance(stages, dict) else {}


def _replaced(content: bytes, today: bytes, name: str) -> bytes | None:
    """The first with the second's lines of a stage; None where they do not fit in there, as it is written otherwise."""
    ours, theirs = content.decode(), today.decode()
    start, end = _lines_of(ours, name)
    new_start, new_end = _lines_of(theirs, name)
    changed = (ours[:start] + theirs[new_start:new_end] + ours[end:]).encode()
    wanted = {**_stages(content, ""), name: _stages(today, "")[name]}
    try:
        return changed if _stages(changed, "") == wanted else None
    except UsageError:
        return None


def _lines_of(text: str, name: str) -> tuple[int, int]:
    """Where the lines of a stage begin and end; comments that come after it are not its own."""
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    stages = next(value for key, value in root.value if key.value == "stages")
    key, value = next(pair for pair in stages.value if pair[0].value == name)
    last = max(leaf.end_mark.index for leaf in _leaves(value))
    following = text.find("\n", last)
    return key.start_mark.index - key.start_mark.column, len(text) if following < 0 else following + 1


def _leaves(node: Any) -> Iterator[yaml.Node]:
    """The nodes whose ends are in the text: the end of a block is only where the next thing begins."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style:
        yield node
        return
    for part in node.value:
        for inner in part if isinstance(part, tuple) else (part,):
            yield from _leaves(inner)


def template(name: str) -> Path:
    """A file that every workspace gets: shipped in the package, or at the top of a source tree."""
    package = Path(__file__).parents[1]
    shipped = package / "template" / name
    return shipped if shipped.is_file() else package.parent / name
