"""Tiny random models of the real text-to-image and text-to-video classes of diffusers, one line a class."""

from __future__ import annotations

from collections.abc import Mapping

from tests.models.zoo.left_out import LEFT_OUT
from tests.models.zoo.noise import NOISE
from tests.models.zoo.packed import PACKED
from tests.models.zoo.prompted import PROMPTED
from tests.models.zoo.stable import STABLE
from tests.models.zoo.tiny import Tiny, guidance_off
from tests.models.zoo.unpacked import UNPACKED
from tests.models.zoo.videos import VIDEOS
from tests.models.zoo.wan import WAN

__all__ = ["LEFT_OUT", "TINY", "Tiny", "guidance_off"]

TINY: Mapping[str, Tiny] = {**STABLE, **NOISE, **PACKED, **UNPACKED, **VIDEOS, **WAN, **PROMPTED}
"""By the class's name; a class's other forms have a word after it."""
