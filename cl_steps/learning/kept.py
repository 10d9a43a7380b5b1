"""What a version's methods keep, beside its adapter: `<adapter>/kept/<method>.safetensors`.

It is promoted, restored and signed with the adapter.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from cl_steps.errors import IntegrityError
from cl_steps.learning.methods.catalogue import Kept
from cl_steps.models.tensors import tensor_bytes

FOLDER, SUFFIX = "kept", ".safetensors"


def write_kept(adapter: Path, kept: Kept) -> None:
    """Put it beside an adapter that has just been saved."""
    for name, tensors in kept.items():
        (adapter / FOLDER).mkdir(exist_ok=True)
        (adapter / FOLDER / f"{name}{SUFFIX}").write_bytes(tensor_bytes(tensors))


def read_kept(adapter: Path) -> Kept:
    """What lies beside an adapter; raises IntegrityError where a file of it is not readable."""
    kept = {}
    for file in sorted((adapter / FOLDER).glob(f"*{SUFFIX}")):
        try:
            kept[file.stem] = load_file(file)
        except (SafetensorError, OSError) as error:
            raise IntegrityError(f"{file} cannot be read: fetch it again") from error
    return kept
