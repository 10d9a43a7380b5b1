"""Tensors as bytes: safetensors whose header has one fixed order, so that equal contents are equal files."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor

ALIGNMENT = 8


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file. The library writes metadata in the order of a random hash; here its header is sorted."""
    raw = save(dict(tensors), {"format": "pt", **(metadata or {})})
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.dumps(json.loads(raw[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % ALIGNMENT)
    return struct.pack("<Q", len(header)) + header + raw[8 + length :]
