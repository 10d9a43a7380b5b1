"""Checkpoints that a kill at any instant leaves whole: tensors first, then the manifest that names their digest.

    <work>/checkpoints/<key>/step-00000300.safetensors
    <work>/checkpoints/<key>/step-00000300.json          {"key", "step", "sha256", "facts"}

The key is the digest of everything that the run depends on, so that only the same run finds them. They are a help, not
the truth: what is broken or foreign is passed over with a line in the log.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor

from cl_steps.diffusion.tensors import tensor_bytes
from cl_steps.workspace.progress import say


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds; `facts` are JSON values."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run; with `work` None nothing is ever saved."""

    def __init__(self, work: Path | None, key: str) -> None:
        self._key = key
        self._folder = work / "checkpoints" / key if work else None

    @property
    def are_kept(self) -> bool:
        """Whether there is a place for them."""
        return self._folder is not None

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Keep a step's state; the ones before go only when it is safely there."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        content = tensor_bytes(tensors)
        _write_whole(self._folder / f"step-{step:08d}.safetensors", content)
        digest = hashlib.sha256(content).hexdigest()
        manifest = {"key": self._key, "step": step, "sha256": digest, "facts": dict(facts)}
        _write_whole(self._folder / f"step-{step:08d}.json", json.dumps(manifest, allow_nan=False).encode())
        for file in self._folder.iterdir():
            if file.stem != f"step-{step:08d}":
                file.unlink(missing_ok=True)

    def load(self) -> Saved | None:
        """The latest whole checkpoint of this very run, if there is one."""
        manifests = sorted(self._folder.glob("step-*.json"), reverse=True) if self._folder else []
        for manifest in manifests:
            try:
                return self._read(manifest)
            except (OSError, ValueError, KeyError, TypeError) as error:
                say(f"checkpoint {manifest.name} is passed over: {error}")
        return None

    def remove(self) -> None:
        """Delete this run's checkpoints."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self, manifest: Path) -> Saved:
        entry = json.loads(manifest.read_text(encoding="utf-8"))
        if entry["key"] != self._key:
            raise ValueError("it belongs to another run")
        content = manifest.with_suffix(".safetensors").read_bytes()
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise ValueError("its bytes are not what its manifest says")
        return Saved(int(entry["step"]), load(content), dict(entry["facts"]))


def _write_whole(path: Path, content: bytes) -> None:
    """Write through a draft, flushed to the disk, so that the name never stands for half a file."""
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
