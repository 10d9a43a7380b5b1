"""Tiny random models of the real text-to-image and text-to-video classes of diffusers, one line a class."""

from __future__ import annotations

from collections.abc import Mapping

from tests.models.zoo.packed import PACKED
from tests.models.zoo.stable import STABLE
from tests.models.zoo.tiny import Tiny, guidance_off
from tests.models.zoo.transformers import TRANSFORMERS
from tests.models.zoo.videos import VIDEOS

__all__ = ["TINY", "Tiny", "guidance_off"]

TINY: Mapping[str, Tiny] = {**STABLE, **PACKED, **TRANSFORMERS, **VIDEOS}
"""By the class's name; a class's other forms have a word after it."""
