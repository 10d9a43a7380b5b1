"""What Git holds of the store: `.dvc` files and `dvc.lock`, which name outputs by their digests. No DVC is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from cl_steps.documents import Unreadable, read_yaml
from cl_steps.errors import IntegrityError
from cl_steps.store.digests import OBJECT

Out = Mapping[str, Any]
"""An output as DVC writes it: md5 (`.dir` at its end for a folder), size, nfiles, path."""


def read_lock(content: bytes | None) -> dict[str, Any]:
    """The stages of a `dvc.lock`, by name; raises IntegrityError where it is none."""
    stages = (document(content, "dvc.lock") if content else {}).get("stages") or {}
    for name, stage in stages.items() if isinstance(stages, dict) else [("stages", None)]:
        parts = [stage.get(key, []) for key in ("deps", "outs")] if isinstance(stage, dict) else [None]
        if not all(isinstance(part, list) and all(map(_is_out, part)) for part in parts):
            raise IntegrityError(f"dvc.lock: {name!r:.80} is no stage as DVC writes it: trigger a new run")
    return dict(stages)


def lock_outs(stages: Mapping[str, Any]) -> dict[str, Out]:
    """Every output that a lock names, by path."""
    return {out["path"]: out for stage in stages.values() for out in stage.get("outs", ())}


def dvc_file(out: Out, path: str) -> bytes:
    """The `.dvc` file that tracks the bytes of `out` under the name `path` (relative to the file)."""
    facts = {key: out[key] for key in ("md5", "size", "nfiles") if key in out}
    return yaml.safe_dump({"outs": [{**facts, "hash": "md5", "path": path}]}, sort_keys=False).encode()


def read_dvc_file(content: bytes) -> Out:
    """The one output of a `.dvc` file; raises IntegrityError where it is none."""
    outs = document(content, "a .dvc file").get("outs")
    if not (isinstance(outs, list) and outs and _is_out(outs[0]) and "md5" in outs[0]):
        raise IntegrityError("a .dvc file names no bytes: restore it from Git's history")
    return dict(outs[0])


def document(content: bytes, name: str) -> dict[str, Any]:
    """A file of DVC's as a mapping; raises IntegrityError where it is none, or cannot be read within bounds."""
    try:
        found = read_yaml(content, digests=True)
    except Unreadable as error:
        raise IntegrityError(f"{name} cannot be read ({error}): restore it from Git's history") from error
    if not isinstance(found, dict):
        raise IntegrityError(f"{name} holds no keys and values: restore it from Git's history")
    return found


def _is_out(entry: Any) -> bool:
    """Whether an entry of a lock or a `.dvc` file is one as DVC writes it; which bytes it names may be open."""
    if not (isinstance(entry, dict) and isinstance(entry.get("path"), str)):
        return False
    return "md5" not in entry or (isinstance(entry["md5"], str) and bool(OBJECT.fullmatch(entry["md5"])))
