"""The README's table of pipeline classes: `python -m tests.models.pipelines` puts it there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import diffusers

from tests.models.zoo import LEFT_OUT, TINY

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- pipelines: begin -->", "<!-- pipelines: end -->"
REFUSED = {
    "IFPipeline": "not of the shape of its latents",
    "PRXPixelPipeline": "without an autoencoder",
    "SanaSprintPipeline": "no loop of a network",
    "LTX2Pipeline": "no loop of a network",
    "AnyFlowPipeline": "no loop of a network",
    "SkyReelsV2DiffusionForcingPipeline": "no loop of a network",
    "CosmosTextToWorldPipeline": "no loop of a network",
    "Cosmos2TextToImagePipeline": "whose spread is not 1",
}
"""What `retain init` says of classes that cannot be trained here."""
NOT_LOADED = ("Kandinsky3Pipeline", "PRXPipeline", "TextToVideoSDPipeline", "WanPipeline (2.2)")
"""Classes whose own `load_lora_weights` fails on their network, or loads one of two."""
TAKEN = tuple(name for name in TINY if name not in REFUSED)


def is_loaded(name: str) -> bool:
    """Whether diffusers loads an adapter into a class."""
    return hasattr(getattr(diffusers, name.partition(" ")[0]), "load_lora_weights") and name not in NOT_LOADED


def table() -> Iterator[str]:
    """The lines of the table."""
    yield f"| classes of diffusers {diffusers.__version__} | |"
    yield "|---|---|"
    loaded = [name for name in TAKEN if is_loaded(name)]
    others = [name for name in TAKEN if not is_loaded(name)]
    yield f"| all of it, and diffusers loads the adapter ({len(loaded)}) | {_listed(loaded)} |"
    merged = f"all of it; diffusers has no loader of adapters for it, so export with `--merged` ({len(others)})"
    yield f"| {merged} | {_listed(others)} |"
    for why in dict.fromkeys(REFUSED.values()):
        yield f"| refused by `retain init`: … {why} | {_listed([name for name in REFUSED if REFUSED[name] == why])} |"
    for why in dict.fromkeys(LEFT_OUT.values()):
        yield f"| left out: {why} | {_listed([name for name in LEFT_OUT if LEFT_OUT[name] == why])} |"


def written(readme: str) -> str:
    """A README with the table in its place."""
    before, _, rest = readme.partition(BEGIN)
    return "\n".join([before + BEGIN, *table(), END]) + rest.partition(END)[2]


def _listed(names: list[str]) -> str:
    return ", ".join(name.replace("Pipeline", "") for name in names)


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
