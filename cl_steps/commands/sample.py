"""`retain sample`: pictures of a prompt by a version, at the line's serving settings."""

from __future__ import annotations

from pathlib import Path

from cl_steps.errors import UsageError
from cl_steps.operations.models import fetched
from cl_steps.progress import say
from cl_steps.repository.line import resolve


def sample(prompt: str, dir: str, version: str | None, out: str, count: int, seed: int) -> str:
    """Write `count` pictures of `prompt`, side by side, as one PNG; raises UsageError for no count or no version."""
    if not 1 <= count <= 64:
        raise UsageError("--count takes 1 to 64")
    if Path(out).suffix.lower() != ".png":
        raise UsageError(f"--out writes a PNG, and {out!r} is not named so: choose a name that ends in .png")
    with fetched(resolve(dir), version) as model:
        from PIL import Image

        from cl_steps.models.model import open_denoiser

        denoiser = open_denoiser(model.base, model.params.compute, model.params.serving)
        denoiser.adapters.load("default", model.adapter)
        if denoiser.cut([prompt]):
            say("the prompt is longer than the base's text encoder reads, and its end is cut")
        pictures = denoiser.sample([prompt] * count, list(range(seed, seed + count)), model.params.serving)
        width, height = pictures[0].size
        sheet = Image.new("RGB", (width * count, height))
        for number, picture in enumerate(pictures):
            sheet.paste(picture, (number * width, 0))
        sheet.save(out)
        return f"{out}: {count} pictures by {model.version}"
