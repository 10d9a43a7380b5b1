"""What holds of every method, alone and with others; each one's mathematics is in a test of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cl_steps.config import METHOD_NAMES, PRESETS, Update, methods_of
from cl_steps.errors import IntegrityError, UsageError
from cl_steps.learning.kept import read_kept, write_kept
from cl_steps.learning.learner import Learner
from cl_steps.learning.methods.catalogue import NONE, REBASE, Methods, method
from cl_steps.learning.plan import WHOLE
from cl_steps.learning.pools import Pool, Pools
from tests.learning.conftest import EVERY, MakeLearner, pool


def everything(learner: Learner) -> dict[str, Tensor]:
    return {**learner.state(), "student now": learner.student.detach().clone()}


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_a_method_is_one_file_that_says_where_it_comes_from(name: str) -> None:
    found = method(name)
    assert any(word in found.paper for word in ("arXiv", "ICML", "ICLR", "NeurIPS", "CVPR"))
    assert found.replays or found.make or found.keep


@pytest.mark.parametrize("names", EVERY)
def test_no_two_terms_have_one_name(make_learner: MakeLearner, names: str | tuple[str, ...]) -> None:
    terms = [term.name for term in make_learner(method=names).penalties]
    assert len({"new", "replay", *terms}) == 2 + len(terms)


@pytest.mark.parametrize("names", EVERY)
@pytest.mark.parametrize("stop", [1, 5])
def test_who_was_stopped_goes_on_to_the_same_end(
    make_learner: MakeLearner, names: str | tuple[str, ...], stop: int
) -> None:
    whole, first, second = (make_learner(method=names, steps=7) for _ in range(3))
    for _ in range(7):
        whole.advance()
    for _ in range(stop):
        first.advance()
    second.restore(first.step, first.state())
    for _ in range(7 - stop):
        second.advance()
    found, expected = everything(second), everything(whole)
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert [rule.figures() for rule in second.rules] == [rule.figures() for rule in whole.rules]


@pytest.mark.parametrize("names", EVERY)
def test_where_the_student_is_the_champion_no_term_holds_it(
    make_learner: MakeLearner, names: str | tuple[str, ...]
) -> None:
    learner = make_learner(method=names)
    _, _, *terms = learner.terms(learner.planner.plan(0)).tolist()
    assert terms == pytest.approx([0] * len(terms), abs=1e-10)


def test_all_methods_go_together_on_a_line_that_knows_nothing_yet_too(make_learner: MakeLearner) -> None:
    for pools in (None, Pools(pool(1, 11))):
        learner = make_learner(method=METHOD_NAMES, pools=pools, steps=2)
        before = learner.student.detach().clone()
        learner.advance()
        assert bool(learner.student.isfinite().all())
        assert not torch.equal(learner.student, before)


def test_presets_are_sets_of_methods_and_finetune_is_none() -> None:
    assert all(set(names) <= set(METHOD_NAMES) for names in PRESETS.values())
    assert methods_of("finetune") == ()
    assert methods_of(("ewc_distill", "replay", "gem")) == ("replay", "distillation", "ewc", "gem")
    assert Methods.of(Update(method="finetune")).members == NONE.members


def test_what_a_set_does_is_what_one_of_it_does() -> None:
    found = {name: Methods.of(Update(method=name)) for name in PRESETS}
    assert {name for name, own in found.items() if own.replays} == {"replay_distill", "replay", "ewc_distill"}
    assert {name for name, own in found.items() if own.teaches} == {"replay_distill", "ewc_distill", "lwf"}
    assert {name for name, own in found.items() if not own.remembers} == {"finetune", "lwf"}
    assert {name for name, own in found.items() if not own.guarded} == {"finetune"}
    assert (REBASE.replays, REBASE.guarded, REBASE.teaches) == (False, True, False)


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"method": "magic"}, "there is no method magic: name one or several of agem, curriculum"),
        ({"method": ("ewc", "magic")}, "there is no method magic"),
        ({"methods": {"magic": {}}}, "methods has magic, which is none"),
        ({"batch_size": 1, "method": ("ewc", "replay")}, "half of each step is replayed"),
        ({"methods": {"ewc": 3}}, "ewc"),
        ({"method": "../learner"}, "there is no method"),
    ],
)
def test_names_are_looked_at_where_parameters_are_read(said: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Update.model_validate(said)


@pytest.mark.parametrize(
    ("knobs", "fault"),
    [
        ({"draws": 0}, r"update\.methods\.ewc has a wrong value for 'draws'"),
        ({"draw": 3}, r"update\.methods\.ewc has an unknown key 'draw'"),
        ({"fisher": "rank2"}, "wrong value for 'fisher'"),
    ],
)
def test_knobs_are_looked_at_where_the_method_is(knobs: dict[str, object], fault: str) -> None:
    update = Update.model_validate({"method": "ewc", "methods": {"ewc": knobs}})
    with pytest.raises(UsageError, match=fault):
        Methods.of(update)


def test_the_weight_of_distillation_may_stand_where_it_stood_before() -> None:
    update = Update.model_validate({"distillation_weight": 3.0, "methods": {"ewc": {"draws": 5}}})
    assert update.methods == {"distillation": {"weight": 3.0}, "ewc": {"draws": 5}}
    update = Update.model_validate({"distillation_weight": 3.0, "methods": {"distillation": {"weight": 2.0}}})
    assert update.methods["distillation"] == {"weight": 2.0}


@pytest.mark.parametrize("name", [name for name in METHOD_NAMES if method(name).keep])
def test_what_is_kept_is_made_at_first_from_what_the_line_knows_and_then_goes_on(
    make_learner: MakeLearner, name: str, tmp_path: Path
) -> None:
    learner = make_learner(method=name)
    assert learner.kept.keys() == {name}
    methods = Methods.of(learner.update)
    for _ in range(2):
        learner.advance()
    write_kept(tmp_path, methods.keep(learner, learner.new, learner.kept))
    found = read_kept(tmp_path)
    again = make_learner(method=name, kept=found)
    assert again.kept == found
    assert any(not torch.equal(found[name][key], value) for key, value in learner.kept[name].items())
    (tmp_path / f"kept/{name}.safetensors").write_bytes(b"no")
    with pytest.raises(IntegrityError, match="fetch it again"):
        read_kept(tmp_path)


def test_two_schedules_are_one_too_many(make_learner: MakeLearner) -> None:
    learner = make_learner(method="curriculum")
    member = Methods.of(learner.update).members["curriculum"]
    with pytest.raises(UsageError, match="two methods that say what a step looks at"):
        Methods({"one": member, "other": member}).make(learner, {})
    assert make_learner().planner.stages == WHOLE


def test_a_pool_is_as_long_as_its_captions() -> None:
    assert len(Pool((), (), (), ())) == 0
