"""The sealed images: asked by an audit alone, and what they say is held against the total budget."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cl_steps.config import Gate, Margins, Params
from cl_steps.data.shards import Asset, read_assets, write_dataset
from cl_steps.models.lora import adapter_digest
from cl_steps.stats.paired import Estimate, relative_increase
from cl_steps.verify.holdout import ALL, SliceAudit, ask, in_words, judge
from tests.steps.test_evaluate import PARAMS, adapter, asset, line

__all__ = ["line"]
SLICES = ["blue", "red"]
STRICT = PARAMS.model_copy(
    update={"gate": Gate(nightly=Margins(loss=0.005), total=Margins(loss=0.01, fidelity=0.1, kid=0.3))}
)


def sealed(name: str, number: int) -> Asset:
    """A picture of the slice that is sealed."""
    return dataclasses.replace(asset(name, number), sealed=True)


@pytest.fixture
def state(line: Path, tmp_path: Path) -> Path:
    """Red has nine sealed images, blue three; the open ones are no images at all in red."""
    shutil.copytree(line / "state", tmp_path / "state")
    shutil.rmtree(tmp_path / "state/global_eval")
    kept = [asset("red", n) for n in range(4)] + [asset("blue", n) for n in range(12)]
    kept += [sealed("red", n) for n in range(50, 59)] + [sealed("blue", n) for n in range(50, 53)]
    write_dataset(tmp_path / "state/global_eval", kept)
    return tmp_path / "state"


def asked(state: Path, params: Params = PARAMS) -> dict[str, SliceAudit]:
    torch.set_num_threads(1)
    return {found.slice: found for found in ask(state, params, SLICES, 1)}


def test_a_champion_that_is_its_anchor_rises_by_nothing_and_few_images_say_nothing(state: Path) -> None:
    found = asked(state)
    assert list(found) == [*SLICES, ALL]
    assert (found["red"].images, found["red"].rise, found["red"].worse) == (9, 0.0, False)
    assert (found["blue"].images, found["blue"].rise) == (3, None)
    assert found[ALL].images == 12
    assert found["blue"].open_rise == 0.0
    assert found["red"].open_rise is None
    assert "8 are needed" in in_words(found["blue"])
    assert "between +0.0% and +0.0%, budget 15%" in in_words(found["red"])


def test_a_champion_that_lost_what_its_anchor_knew_is_worse(state: Path) -> None:
    before = adapter_digest(state / "adapter")
    shutil.rmtree(state / "adapter")
    adapter(state.parent, "state/adapter", 3, scale=40.0)
    assert adapter_digest(state / "adapter") != before
    found = asked(state, STRICT)
    assert found["red"].worse
    assert found[ALL].worse
    assert not found["blue"].worse
    assert found["red"].lower is not None
    assert found["red"].lower > STRICT.gate.total.loss


def test_no_sealed_image_decides_what_the_open_ones_say(state: Path) -> None:
    before = asked(state)["blue"].open_rise
    rows = [row for row in read_assets(state / "global_eval") if not row.sealed]
    shutil.rmtree(state / "global_eval")
    write_dataset(state / "global_eval", rows)
    found = asked(state)
    assert found["blue"].open_rise == before
    assert [one.images for one in found.values()] == [0, 0, 0]
    assert json.dumps([one.document() for one in found.values()])


def test_false_alarms_over_all_slices_stay_within_the_level() -> None:
    """Harms exactly on the budget: the chance that any slice is called worse is the gate's level, by Holm."""
    rng, params, alarms = np.random.default_rng(0), Params(), 0
    for _ in range(600):
        anchors = rng.gamma(8.0, 0.1, (4, 40))
        rises = {
            str(n): relative_increase(anchor * (1.15 + 0.1 * rng.standard_normal(40)), anchor)
            for n, anchor in enumerate(anchors)
        }
        alarms += any(found.worse for found in judge(list(rises), rises, {}, params))
    assert 0.02 < alarms / 600 < 0.08


def test_a_rise_far_beyond_the_budget_is_found() -> None:
    rise = Estimate(0.4, 0.05, 20)
    [bad, fine] = judge(["a", "b"], {"a": rise, "b": Estimate(0.01, 0.05, 20)}, {}, Params())
    assert (bad.worse, fine.worse) == (True, False)
