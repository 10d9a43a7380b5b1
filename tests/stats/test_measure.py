"""What is measured of a night, without a model: noise and timesteps, and the table of its means."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cl_steps.stats.measure import NO_TEXT, Measured, figures_of, noise_plan, summary
from tests.stats.nights import night

THOUSAND = SimpleNamespace(at=lambda u: (u * 1000).long())


def bench(draws: int = 4, plan: str = "p", reads_text: bool = False, held_out: Any = None) -> Any:
    return SimpleNamespace(
        evaluate=SimpleNamespace(loss_draws=draws), model=SimpleNamespace(schedule=THOUSAND), plan=plan,
        reader=SimpleNamespace(reads_text=reads_text), held_out=held_out or {},
    )  # fmt: skip


def test_an_image_has_noise_of_its_own_and_a_timestep_from_each_part_of_the_schedule() -> None:
    shape = torch.Size((2, 3, 3))
    noise, timesteps = noise_plan(bench(), "a", shape)
    assert noise.shape == (4, 2, 3, 3)
    assert (timesteps // 250).tolist() == [0, 1, 2, 3]
    again = noise_plan(bench(), "a", shape)
    assert torch.equal(noise, again[0])
    assert torch.equal(timesteps, again[1])
    for other in (noise_plan(bench(), "b", shape), noise_plan(bench(plan="q"), "a", shape)):
        assert not torch.equal(noise, other[0])
        assert not torch.equal(timesteps, other[1])


def test_the_table_has_each_mean_in_one_order_and_nothing_that_is_not_known() -> None:
    figures = night()
    losses = figures.items["champion", "black-ink", "loss"]
    table = summary(figures)
    assert table["black-ink"]["loss"]["champion"] == pytest.approx(sum(losses.values()) / len(losses), rel=1e-5)
    assert set(table["blue-ink"]) == {"loss", "fidelity", "kid", "diversity"}
    shuffled = replace(figures, items=dict(reversed(figures.items.items())))
    assert json.dumps(summary(shuffled)) == json.dumps(table)
    unknown = replace(figures, items={**figures.items, ("champion", "black-ink", "loss"): {"u": math.nan}})
    assert summary(unknown)["black-ink"]["loss"]["champion"] is None


def test_without_captions_fidelity_is_left_out_and_said() -> None:
    held = SimpleNamespace(real=lambda: None)
    told: list[Any] = []
    figures_of(bench(held_out={"a": held}), Measured(), told.append)  # type: ignore[arg-type]
    figures_of(bench(reads_text=True), Measured(), told.append)  # type: ignore[arg-type]
    assert told == [{"a": {"fidelity": NO_TEXT}}, {}]
