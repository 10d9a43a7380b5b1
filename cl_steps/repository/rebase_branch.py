"""The branch of a rebase: how DVC knows of the base that it brings. Pure.

The new base is the output of a stage of its own, which is frozen and has a lock entry from the beginning: nothing runs
for it, and `dvc.lock` says what became of it as it does of every other output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from cl_steps.config import parse_mapping
from cl_steps.pipeline import NEW_BASE, STAGES, of_run
from cl_steps.store.pointers import Out

STAGE = "rebase"
COMMAND = "retain rebase"


def rebase_files(pipeline: bytes, base: Out) -> dict[str, bytes]:
    """`dvc.yaml` and `dvc.lock` of a rebase's branch.

    Args:
        pipeline: main's `dvc.yaml`.
        base: the new base as the store has it.
    """
    document = {"stages": rebased(parse_mapping(pipeline, "main's dvc.yaml")["stages"])}
    out = {"path": NEW_BASE, "hash": "md5", **{key: base[key] for key in ("md5", "size", "nfiles")}}
    lock = {"schema": "2.0", "stages": {STAGE: {"cmd": COMMAND, "outs": [out]}}}
    return {"dvc.yaml": _yaml(document), "dvc.lock": _yaml(lock)}


def rebased(stages: Mapping[str, Any]) -> dict[str, Any]:
    """The stages of a `dvc.yaml` as a rebase plays them: as `pipeline.of_run` says."""
    added = {step.name: set(of_run(step, rebase=True).reads) - set(step.reads) for step in STAGES}
    changed = {
        name: {**stage, "deps": [*stage["deps"], *sorted(added[name])]} if added.get(name) else stage
        for name, stage in stages.items()
    }
    return {STAGE: {"cmd": COMMAND, "outs": [NEW_BASE], "frozen": True}, **changed}


def _yaml(document: Mapping[str, Any]) -> bytes:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode()
