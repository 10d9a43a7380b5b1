"""Full fine-tuning as an adapter: the base plus a change, its gradients, its file, and the base as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call

from cl_steps.config import Lora
from cl_steps.errors import IntegrityError, UsageError
from cl_steps.models.adapters import fold
from cl_steps.models.full import CHANGE
from cl_steps.models.lora import check_shape, read_adapter
from cl_steps.models.model import Denoiser
from tests.learning.conftest import MakeLearner, base, make_learner  # noqa: F401  (fixtures)
from tests.models.test_adapters import base_bytes, inputs, output, unet_inputs
from tests.tiny import disturb

FULL = Lora(rank="full")


@pytest.fixture
def changed(denoiser: Denoiser) -> Denoiser:
    denoiser.adapters.add_fresh("default", FULL, seed=0)
    return denoiser


def weights(denoiser: Denoiser, name: str = "default") -> dict[str, torch.Tensor]:
    """The network's weights with the change added."""
    own = dict(denoiser.pipeline.unet.named_parameters())
    change = denoiser.adapters.weights(name)
    return {key: value + change[f"unet.{key}{CHANGE}"] for key, value in own.items()}


def test_at_first_nothing_is_changed_and_every_weight_can_be(changed: Denoiser) -> None:
    assert torch.equal(output(changed, "default"), output(changed, None))
    unet = changed.pipeline.unet
    assert changed.adapters.flat("default").numel() == sum(weight.numel() for weight in unet.parameters())


def test_it_computes_with_the_base_plus_the_change_and_leaves_the_base(changed: Denoiser) -> None:
    before, names = base_bytes(changed), [name for name, _ in changed.pipeline.unet.named_parameters()]
    plain = output(changed, None)
    disturb(changed, "default")
    x, t, embeddings = unet_inputs(changed)
    with torch.no_grad():
        by_hand = functional_call(changed.pipeline.unet, weights(changed), (x, t, embeddings), {"return_dict": False})[
            0
        ]
    torch.testing.assert_close(output(changed, "default"), by_hand, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(by_hand, plain)
    assert torch.equal(output(changed, None), plain)
    assert base_bytes(changed) == before
    assert [name for name, _ in changed.pipeline.unet.named_parameters()] == names
    assert all(isinstance(weight, nn.Parameter) for weight in changed.pipeline.unet.parameters())


def test_its_gradient_is_that_of_the_weights_themselves(changed: Denoiser) -> None:
    disturb(changed, "default")
    flat = changed.adapters.train("default")
    changed.predict(*inputs(changed), "default").square().mean().backward()
    found = {key: value.clone() for key, value in changed.adapters._attached["default"].views(flat.grad).items()}
    leaves = {key: value.detach().requires_grad_() for key, value in weights(changed).items()}
    x, t, embeddings = unet_inputs(changed)
    theirs = functional_call(changed.pipeline.unet, leaves, (x, t, embeddings), {"return_dict": False})[0]
    theirs.square().mean().backward()
    for key, leaf in leaves.items():
        torch.testing.assert_close(found[f"unet.{key}{CHANGE}"], leaf.grad, atol=1e-6, rtol=1e-4)


def test_what_is_saved_is_loaded_and_may_become_the_base(changed: Denoiser, tmp_path: Path) -> None:
    disturb(changed, "default")
    file = changed.adapters.save("default", tmp_path)
    assert file.read_bytes() == changed.adapters.save("default", tmp_path / "again").read_bytes()
    changed.adapters.load("teacher", tmp_path)
    assert torch.equal(output(changed, "teacher"), output(changed, "default"))
    assert changed.adapters.shape("teacher") == FULL
    expected, adapter = output(changed, "default"), read_adapter(tmp_path)
    fold(adapter, {"unet": changed.pipeline.unet})
    torch.testing.assert_close(output(changed, None), expected)


def test_what_does_not_fit_is_refused(changed: Denoiser, lora: Lora, tmp_path: Path) -> None:
    changed.adapters.save("default", tmp_path)
    with pytest.raises(UsageError, match=r"rank full: set update\.lora\.rank"):
        check_shape(tmp_path, lora)
    check_shape(tmp_path, FULL)
    changed.pipeline.unet.register_parameter("more", nn.Parameter(torch.zeros(3)))
    try:
        with pytest.raises(IntegrityError, match=r"1 of its .* tensors are missing, such as unet\.more\.change"):
            changed.adapters.load("teacher", tmp_path)
    finally:
        del changed.pipeline.unet.more


def test_half_precision_is_kept(changed: Denoiser) -> None:
    changed.pipeline.unet.to(torch.bfloat16)
    with changed.adapters.active("default"):
        assert {weight.dtype for weight in changed.pipeline.unet.parameters()} == {torch.bfloat16}


def test_a_learner_learns_every_weight(make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("tests.learning.conftest.LORA", FULL)
    learner = make_learner(steps=20, learning_rate=1e-3)
    before = learner.terms(learner.planner.plan(0)).detach()
    for _ in range(20):
        learner.advance()
    assert learner.terms(learner.planner.plan(0)).detach()[0] < before[0]
    assert int((learner.student != 0).sum()) > 0.99 * learner.student.numel()
