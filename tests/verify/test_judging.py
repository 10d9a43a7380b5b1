"""What a judge's statement is about: what its step found, and all that the steps before it stored."""

from __future__ import annotations

import pytest

from cl_steps.verify.authenticity import Doubt
from cl_steps.verify.judging import LINK, compare_statement, found_in

BEGUN = "c" * 40
LOCK = {
    "ingest": {"outs": [{"path": "tonight/intake", "md5": "1" * 32 + ".dir"}]},
    "evaluate": {
        "deps": [{"path": "state/base", "md5": "2" * 32 + ".dir"}],
        "outs": [{"path": "tonight/evaluation/figures", "md5": "3" * 32 + ".dir"}],
    },
    "gate": {"deps": [{"path": "checks", "md5": "4" * 32 + ".dir"}], "outs": [{"path": "x", "md5": "5" * 32}]},
}
REPORTS = {name: name[0] * 64 for name in ("ingest", "evaluate", "gate")}


def test_a_step_found_its_own_outputs_and_had_all_that_was_there_before() -> None:
    subjects, materials = found_in(LOCK, REPORTS, BEGUN, "evaluate")
    assert subjects == {
        "tonight/evaluation/figures": {"md5": "3" * 32},
        "reports/evaluate.json": {"sha256": "e" * 64},
    }
    assert materials == {
        "state/base": {"md5": "2" * 32},
        "tonight/intake": {"md5": "1" * 32},
        "reports/ingest.json": {"sha256": "i" * 64},
        "begun": {"gitCommit": BEGUN},
    }


def test_a_step_that_did_not_run_found_nothing() -> None:
    subjects, materials = found_in({"ingest": LOCK["ingest"]}, {}, BEGUN, "evaluate")
    assert (subjects, set(materials)) == ({}, {"tonight/intake", "begun"})


FOUND = ({"figures": {"md5": "a"}}, {"base": {"md5": "b"}})


def statement(subject: object, materials: object, kind: str = LINK) -> dict[str, object]:
    return {"predicateType": kind, "subject": subject, "predicate": {"materials": materials}}


def resources(**digests: str) -> list[dict[str, object]]:
    return [{"name": name.replace("__", "/"), "digest": {"md5": digest}} for name, digest in digests.items()]


def test_a_statement_says_just_what_was_found_but_for_folders_that_are_not_here() -> None:
    compare_statement(statement(resources(figures="a"), resources(base="b")), FOUND, ())
    more = statement(resources(figures="a", figures__x="y"), resources(base="b"))
    compare_statement(more, FOUND, {"figures"})
    for wrong, words in (
        (more, "figures/x is not"),
        (statement(resources(figures="b"), resources(base="b")), "figures is not"),
        (statement(resources(figures="a"), resources()), "base is not"),
        (statement(resources(figures="a"), 7), "base is not"),
        (statement([{}], resources(base="b")), "figures is not"),
        (statement(resources(figures="a"), resources(base="b"), "another"), "no finding of a judge"),
        ({**statement([], []), "predicate": None}, "no finding of a judge"),
    ):
        with pytest.raises(Doubt, match=words):
            compare_statement(wrong, FOUND, ())
