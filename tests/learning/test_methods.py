"""The catalogue of methods and the parameter that chooses among them say the same."""

from __future__ import annotations

from typing import get_args

from cl_steps.config import Update
from cl_steps.learning.methods.catalogue import METHODS
from cl_steps.learning.methods.plain import REBASE


def test_the_parameter_knows_just_the_methods_that_there_are() -> None:
    assert get_args(Update.model_fields["method"].annotation) == tuple(METHODS)


def test_no_two_terms_of_a_method_have_one_name() -> None:
    names = [[penalty.name for penalty in method.penalties(Update())] for method in METHODS.values()]
    assert all(len({"new", "replay", *group}) == 2 + len(group) for group in names)


OURS = ("replay_distill", "replay", "finetune")


def test_the_baseline_alone_forgets_unguarded_and_only_distillation_needs_a_teacher() -> None:
    assert {name for name in OURS if not METHODS[name].replays} == {"finetune"}
    assert {name for name in OURS if not METHODS[name].guarded} == {"finetune"}
    assert {name for name in OURS if METHODS[name].teaches} == {"replay_distill"}
    assert (REBASE.replays, REBASE.guarded, REBASE.teaches) == (False, True, False)
