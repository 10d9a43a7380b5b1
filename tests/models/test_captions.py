"""Captions: what does not fit is counted, and each is kept as the pipeline's own code made it."""

from __future__ import annotations

from pathlib import Path

import torch

from cl_steps.config import Compute, Serving
from cl_steps.models.captions import FirstCall, row_places
from cl_steps.models.model import Denoiser, open_denoiser
from tests.models.whole import WHOLE
from tests.models.zoo import TINY


def test_captions_that_are_too_long_are_counted_once_each(denoiser: Denoiser) -> None:
    longest = "a b c d e f"
    assert denoiser.cut([longest, "a"]) == 0
    assert denoiser.cut([f"{longest} g", f"{longest} g", "a"]) == 1


def test_captions_that_a_pipeline_is_given_are_not_written_into(tmp_path: Path) -> None:
    WHOLE["ZImagePipeline"](tmp_path / "base")
    denoiser = open_denoiser(tmp_path / "base", Compute(device="cpu"), Serving(width=32, height=32))
    texts = ["a red circle", "a blue one"]
    first = denoiser.encode_prompts(texts)
    denoiser.captions.kept.clear()
    again = denoiser.encode_prompts(["a red circle"])
    assert torch.equal(first[0]["prompt_embeds"][0], again[0]["prompt_embeds"][0])
    given = {"prompt": ["a red circle"]}
    denoiser.family.watcher.watch(FirstCall(), denoiser.size, given)
    assert given == {"prompt": ["a red circle"]}


def test_where_the_rows_are_is_seen_from_one_caption_and_two() -> None:
    llama = TINY["HiDreamImagePipeline"].conditions
    assert row_places(llama(1), llama(2)) == {
        "prompt_embeds_t5": 0, "prompt_embeds_llama3": 1, "pooled_prompt_embeds": 0,
    }  # fmt: skip
    assert row_places(*(TINY["Kandinsky5T2IPipeline"].conditions(count) for count in (1, 2))) is None
