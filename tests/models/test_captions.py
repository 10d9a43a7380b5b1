"""Captions: what does not fit is counted, and each is kept as the pipeline's own code made it."""

from __future__ import annotations

from cl_steps.models.captions import row_places
from cl_steps.models.model import Denoiser
from tests.models.zoo import TINY


def test_captions_that_are_too_long_are_counted_once_each(denoiser: Denoiser) -> None:
    longest = "a b c d e f"
    assert denoiser.cut([longest, "a"]) == 0
    assert denoiser.cut([f"{longest} g", f"{longest} g", "a"]) == 1


def test_where_the_rows_are_is_seen_from_one_caption_and_two() -> None:
    llama = TINY["HiDreamImagePipeline"].conditions
    assert row_places(llama(1), llama(2)) == {
        "prompt_embeds_t5": 0, "prompt_embeds_llama3": 1, "pooled_prompt_embeds": 0,
    }  # fmt: skip
    assert row_places(*(TINY["Kandinsky5T2IPipeline"].conditions(count) for count in (1, 2))) is None
