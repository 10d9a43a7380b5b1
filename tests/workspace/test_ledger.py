"""The ledger as a fold over events."""

from __future__ import annotations

from typing import Any

import pytest

from cl_steps.errors import IntegrityError, UsageError
from cl_steps.workspace.ledger import fold, parse_event


def run(
    name: str, outcome: str, assets: int = 10, members: list[str] | None = None, of: str | None = None
) -> dict[str, Any]:
    batch = {"runs": members if members is not None else [name], "digest": f"digest-{name}", "of": of}
    intake = {"md5": "m", "assets": assets}
    return {"kind": "run", "run": name, "outcome": outcome, "version": "v2", "batch": batch, "intake": intake}


def answer(name: str, yes: bool) -> dict[str, Any]:
    return {
        "kind": "answer",
        "run": name,
        "digest": f"digest-{name}",
        "answer": "yes" if yes else "no",
        "by": "x",
        "reason": "y",
    }


def test_quiet_nights_add_up_until_a_promotion() -> None:
    events = [run("a", "no_update"), run("b", "no_update", members=["a", "b"])]
    assert fold(events).pending(3) == ("a", "b")
    learnt = fold([*events, run("c", "promoted", members=["a", "b", "c"])])
    assert learnt.pending(3) == ()
    assert {intake.status for intake in learnt.intakes.values()} == {"learnt"}


def test_held_assets_are_in_no_later_batch_until_a_person_says_yes() -> None:
    events = [run("a", "held")]
    assert fold(events).pending(3) == ()
    assert fold([*events, answer("a", yes=False)]).approved() is None
    said_yes = fold([*events, answer("a", yes=True)])
    assert said_yes.approved() == "a"
    assert said_yes.answer_for("digest-a") is not None
    assert said_yes.answer_for("digest-b") is None
    assert fold([*events, answer("a", yes=True), run("b", "promoted", 0, ["a"], of="a")]).approved() is None


def test_a_rejection_counts_once_and_learnt_assets_stay_learnt() -> None:
    events = [run("a", "rejected"), run("a", "rejected"), run("b", "rejected", 0, ["a"])]
    assert fold(events).pending(2) == ()
    assert fold(events).pending(3) == ("a",)
    again = [run("a", "promoted"), run("b", "rejected", 0, ["a"], of="a"), run("c", "held", 0, ["a"], of="a")]
    assert fold(again).intakes["a"].status == "learnt"


def test_failed_and_stale_change_nothing() -> None:
    ledger = fold([run("a", "failed"), run("b", "stale", members=["a", "b"])])
    assert ledger.pending(1) == ("a", "b")


def test_an_empty_intake_is_none() -> None:
    assert fold([run("a", "no_update", assets=0)]).intakes == {}


def test_what_was_quarantined_is_remembered() -> None:
    first, second = run("a", "held"), run("b", "no_update")
    first["intake"]["quarantine_keys"], second["intake"]["quarantine_keys"] = ["k1", "k2"], ["k2", "k3"]
    assert fold([first, second]).quarantined == {"k1", "k2", "k3"}


def test_an_unknown_run_has_no_batch() -> None:
    with pytest.raises(UsageError, match="retain runs"):
        fold([]).batch_of("x")


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"schema": 99, "kind": "run"}', b"\xff"])
def test_a_file_that_is_no_event(content: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"x\.json"):
        parse_event("x.json", content)
