"""Checkpoints that a kill at any instant leaves whole: tensors first, then the manifest that names their digest.

    <work>/checkpoints/<key>/step-00000300.safetensors
    <work>/checkpoints/<key>/step-00000300.json          {"key", "step", "sha256", "facts"}

`work` is a folder or a URL, so that a run goes on on another machine. The key is the digest of everything that the run
depends on, so that only the same run finds them. They are a help, not the truth: what is broken or foreign is passed
over with a line in the log, and one that cannot be saved stops nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor

from cl_steps import digests
from cl_steps.documents import Json
from cl_steps.errors import Unavailable
from cl_steps.models.tensors import tensor_bytes
from cl_steps.progress import say
from cl_steps.store.places import Place, open_work


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds; `facts` are JSON values."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run; with `work` None nothing is ever saved."""

    def __init__(self, work: str | Path | None, key: str) -> None:
        self.key = key
        self._place = open_work(work, "checkpoints", key) if work else None

    @property
    def are_kept(self) -> bool:
        """Whether there is a place for them."""
        return self._place is not None

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Json) -> None:
        """Keep a step's state; the ones before go only when it is safely there. Where it fails it says so."""
        if self._place is None:
            return
        name = f"step-{step:08d}"
        try:
            self._save(self._place, name, tensor_bytes(tensors), {"step": step, "facts": dict(facts)})
        except (Unavailable, FileNotFoundError) as error:
            say(f"the checkpoint of step {step} is not kept, and training goes on: {error}")
            return
        self._drop_older(self._place, name)

    def load(self) -> Saved | None:
        """The latest whole checkpoint of this very run, if there is one.

        Raises:
            Unavailable: nobody can tell whether there is one: to begin anew could waste what was learnt.
        """
        if self._place is None:
            return None
        for name in sorted(self._place.names(), reverse=True):
            try:
                if name.startswith("step-") and name.endswith(".json"):
                    return self._read(self._place, name)
            except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
                say(f"checkpoint {name} is passed over: {error}")
        return None

    def remove(self) -> None:
        """Delete this run's checkpoints; where that fails they expire."""
        try:
            if self._place is not None:
                self._place.remove()
        except Unavailable as error:
            say(f"checkpoints that are not needed any more stay: {error}")

    def _save(self, kept: Place, name: str, content: bytes, facts: Json) -> None:
        kept.write(f"{name}.safetensors", content)
        manifest = {"key": self.key, "sha256": digests.sha256(content), **facts}
        kept.write(f"{name}.json", json.dumps(manifest, allow_nan=False).encode())

    def _drop_older(self, kept: Place, name: str) -> None:
        try:
            for other in kept.names():
                if Path(other).stem != name:
                    kept.delete(other)
        except Unavailable as error:
            say(f"older checkpoints stay for now: {error}")

    def _read(self, kept: Place, name: str) -> Saved:
        entry = json.loads(kept.read(name))
        if entry["key"] != self.key:
            raise ValueError("it belongs to another run")
        content = kept.read(f"{Path(name).stem}.safetensors")
        if digests.sha256(content) != entry["sha256"]:
            raise ValueError("its bytes are not what its manifest says")
        return Saved(int(entry["step"]), load(content), dict(entry["facts"]))
