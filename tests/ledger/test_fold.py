"""The ledger as a fold over events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cl_steps.errors import IntegrityError, UsageError
from cl_steps.ledger import fold as folding
from cl_steps.ledger.events import event_of, parse_event
from cl_steps.ledger.fold import Ledger, read_ledger
from tests.lasting import whole_event

M, N, LAST, SHARD = (letter * 32 for letter in "abcd")
X, Y = (letter * 64 for letter in "ef")


def fold(events: list[dict[str, Any]]) -> Ledger:
    return folding.fold(event_of(whole_event(event)) for event in events)


def run(
    name: str, outcome: str, assets: int = 10, members: list[str] | None = None, of: str | None = None
) -> dict[str, Any]:
    batch = {"runs": members if members is not None else [name], "digest": f"digest-{name}", "of": of}
    intake = {"md5": M, "assets": assets}
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


def promoted(name: str, version: str, members: list[str] | None = None) -> dict[str, Any]:
    return {**run(name, "promoted", members=members), "version": version}


def rollback(lineage: list[str], left: list[str], relearn: bool = False) -> dict[str, Any]:
    return {"kind": "rollback", "version": lineage[-1], "lineage": lineage, "left": left, "relearn": relearn}


def statuses(events: list[dict[str, Any]]) -> dict[str, str]:
    return {name: intake.status for name, intake in fold(events).intakes.items()}


NIGHTS = [promoted("a", "v2"), promoted("b", "v3"), promoted("c", "v4"), run("d", "no_update"), run("e", "held")]


def test_a_rollback_sets_aside_what_the_versions_left_behind_learnt() -> None:
    events = [*NIGHTS, rollback(["v1", "v2"], ["v3", "v4"])]
    assert statuses(events) == {"a": "learnt", "b": "set_aside", "c": "set_aside", "d": "pending", "e": "set_aside"}
    assert fold(events).intakes["b"].why == "left behind by the rollback to v2"
    assert fold(events).pending(3) == ("d",)


def test_a_rollback_with_relearn_lets_them_wait_with_all_their_attempts() -> None:
    tried = run("x", "rejected", 0, ["b"])
    events = [
        NIGHTS[0],
        run("b", "no_update"),
        tried,
        {**promoted("b2", "v3", ["b"]), "intake": None},
        rollback(["v1", "v2"], ["v3"], True),
    ]
    assert fold(events).intakes["b"].attempts == 0
    assert fold(events).pending(1) == ("b",)


def test_forward_again_makes_them_learnt_again() -> None:
    events = [*NIGHTS, rollback(["v1", "v2"], ["v3", "v4"]), rollback(["v1", "v2", "v3"], [])]
    assert statuses(events) == {"a": "learnt", "b": "learnt", "c": "set_aside", "d": "pending", "e": "set_aside"}


def test_what_an_earlier_rollback_set_aside_stays_so_where_a_later_one_relearns() -> None:
    later = [promoted("f", "v5"), rollback(["v1", "v2"], ["v5"], relearn=True)]
    found = statuses([*NIGHTS, rollback(["v1", "v2"], ["v3", "v4"]), *later])
    assert (found["b"], found["c"], found["f"]) == ("set_aside", "set_aside", "pending")


def test_what_was_relearnt_is_learnt_by_the_version_that_counts() -> None:
    relearnt = [rollback(["v1", "v2"], ["v3", "v4"], True), promoted("g", "v5", ["b", "c", "d", "g"])]
    ledger = fold([*NIGHTS, *relearnt])
    assert ledger.intakes["b"].versions == ["v3", "v5"]
    assert ledger.intakes["b"].why == "learnt by v5"
    back = fold([*NIGHTS, *relearnt, rollback(["v1", "v2", "v3", "v4"], ["v5"])])
    assert (back.intakes["b"].status, back.intakes["d"].status) == ("learnt", "set_aside")


def withdrawal(name: str, **facts: Any) -> dict[str, Any]:
    event = {"kind": "withdrawal", "id": f"event-{name}", "assets": [{"sha256": name}], "replaced": {}, "erased": []}
    return {**event, **facts}


def test_withdrawn_assets_have_tombstones_and_erased_folders_have_others_in_their_place() -> None:
    first = withdrawal(X, replaced={M: {"md5": N}}, erased=[M, SHARD])
    second = withdrawal(Y, replaced={N: {"md5": LAST}}, erased=[N])
    ledger = fold([run("a", "no_update"), first, second, run("b", "stale")])
    assert ledger.tombstones.keys() == {X, Y}
    assert ledger.erased == {M: f"event-{X}", SHARD: f"event-{X}", N: f"event-{Y}"}
    assert (ledger.standing(M), ledger.standing("other")) == ({"md5": LAST}, {"md5": "other"})
    # Also the intake of a run that ended after the erasure, and named what it had stored.
    assert {intake.md5 for intake in ledger.intakes.values()} == {LAST}


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"schema": 99, "kind": "run"}', b"\xff"])
def test_a_file_that_is_no_event(content: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"x\.json"):
        parse_event("x.json", content)


def test_a_no_is_no_yes_to_the_same_batch() -> None:
    events = [run("a", "held")]
    assert fold([*events, answer("a", yes=False)]).answer_for("digest-a") is None
    assert fold([*events, answer("a", yes=True), answer("a", yes=False)]).answer_for("digest-a") is None


def test_a_no_to_an_alarm_sets_aside_what_that_night_took_in_and_no_other() -> None:
    sound = [run("a", "no_update") | {"drift": "quiet"}, run("b", "no_update") | {"drift": None}]
    held = run("c", "held", members=["a", "b", "c"]) | {"drift": "alarming"}
    assert fold([*sound, held]).pending(3) == ()
    refused = fold([*sound, held, answer("c", yes=False)])
    assert refused.pending(3) == ("a",)
    assert {name: intake.why for name, intake in refused.intakes.items()} == {
        "a": "",
        "b": "run c was refused by x",
        "c": "run c was refused by x",
    }


def test_a_no_to_what_is_no_alarm_sets_aside_the_whole_batch() -> None:
    events = [run("a", "no_update") | {"drift": "quiet"}, run("b", "held", members=["a", "b"]) | {"drift": "drifted"}]
    assert fold([*events, answer("b", yes=False)]).pending(3) == ()


def test_a_no_does_not_bring_back_what_is_settled_otherwise() -> None:
    events = [run("a", "no_update") | {"drift": "quiet"}, run("b", "held", members=["a", "b"]) | {"drift": "alarming"}]
    learnt = run("c", "promoted", members=["a"])
    assert fold([*events, learnt, answer("b", yes=False)]).intakes["a"].status == "learnt"


def test_only_a_held_run_waits_for_its_approved_batch() -> None:
    said = [run("a", "held"), answer("a", yes=True)]
    assert fold([*said, {**run("a", "promoted"), "version": "v2"}]).approved() is None
    assert fold([*said, {"kind": "rebase", "run": "a"}]).approved() is None


def test_events_count_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number in reversed(range(30)):
        event = whole_event({**answer("a", yes=number % 2 == 1), "reason": str(number)})
        (tmp_path / f"{number:02d}.json").write_text(json.dumps(event), encoding="utf-8")
    assert read_ledger(tmp_path).answers["a"].reason == "29"


def test_pruned_runs_are_remembered_and_an_unknown_kind_is_passed_over() -> None:
    events = [{"kind": "prune", "runs": {"a": "tip"}}, {"kind": "migration", "runs": {"b": "tip"}}]
    assert fold(events).pruned == {"a": "tip"}
