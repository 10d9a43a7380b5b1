"""What `retain init` asks of a base: each thing that is broken is refused in its own words."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from cl_steps.config import Lora
from cl_steps.errors import UsageError
from cl_steps.models.model import Denoiser
from cl_steps.models.proof import prove


def no_numbers(denoiser: Denoiser) -> None:
    next(iter(denoiser.pipeline.unet.parameters())).data.view(-1)[0] = torch.nan


def one_colour(denoiser: Denoiser) -> None:
    last = denoiser.pipeline.vae.decoder.conv_out
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


def deaf(denoiser: Denoiser) -> None:
    for name, layer in denoiser.pipeline.unet.named_modules():
        if name.endswith("attn2.to_v"):
            nn.init.zeros_(layer.weight)


def timeless(denoiser: Denoiser) -> None:
    for name, layer in denoiser.pipeline.unet.named_modules():
        if name.endswith("time_emb_proj"):
            nn.init.zeros_(layer.weight)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (no_numbers, "its unet has weights that are no numbers, such as "),
        (one_colour, "the picture that it draws is of one colour"),
        (deaf, "what it predicts does not depend on the caption"),
        (timeless, "what it predicts does not depend on the timestep"),
    ],
)
def test_a_broken_base_is_refused_with_what_is_broken(
    denoiser: Denoiser, lora: Lora, damage: Callable[[Denoiser], None], said: str
) -> None:
    damage(denoiser)
    with pytest.raises(UsageError, match=f"this base cannot be kept up to date: {said}"):
        prove(denoiser, lora)


def test_a_good_base_is_described_and_left_as_it_was(denoiser: Denoiser, lora: Lora) -> None:
    before = {name: weight.clone() for name, weight in denoiser.pipeline.unet.state_dict().items()}
    rows = dict(prove(denoiser, lora).rows)
    assert rows["pipeline"] == "StableDiffusionPipeline"
    assert rows["predicts"].startswith("epsilon")
    assert rows["pictures"] == "16 x 16, also 16 x 8"
    assert rows["latents"] == "4 x 8 x 8"
    assert rows["captions"] == "prompt_embeds 8 x 16"
    assert denoiser.adapters.names == ()
    after = denoiser.pipeline.unet.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
