"""Versions after their parents, states moved by acts alone, intakes as events say: on a made-up main."""

from __future__ import annotations

from typing import Any

import pytest

from cl_steps.ledger.fold import Ledger
from cl_steps.repository.history import Commit
from cl_steps.store.pointers import dvc_file
from cl_steps.verify import append_only
from cl_steps.verify.append_only import check_history, check_intakes, check_versions
from cl_steps.verify.evidence import Evidence
from tests.lasting import MD5, event
from tests.verify.books import EARLIER, RUN, book_of, record


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ({"parent": "v2"}, "its parent v2 is no version before it"),
        ({"parent": "v3"}, "its parent v3 is no version before it"),
        ({"parent": "v7"}, "its parent v7 is no version before it"),
        ({"parent": "v1", "digests": {"teacher": "1" * 32}}, "its teacher is not the adapter of its parent v1"),
        ({"parent": "v1", "created": EARLIER}, "it says that it was made before v1"),
        ({"parent": "v1"}, None),
    ],
)
def test_a_version_comes_after_its_parent_and_learnt_from_it(
    second: dict[str, Any], why: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = {"v1": record("v1"), "v2": record("v2", **second), "v3": record("v3", "v1")}
    book = book_of({f"versions/v000{name[1:]}.json": said for name, said in records.items()})
    state = {**records["v1"]["digests"]["state"], "base": MD5, "extractor": MD5}
    states = {commit: state for version in book.versions.values() for commit in (version.commit.id, "")}
    monkeypatch.setattr(Evidence, "states", lambda *_: states)
    monkeypatch.setattr(append_only, "disagreements", lambda *_: [])
    found = {finding.why for finding in check_versions(book, book.versions.values()) if finding.where == "v2 record"}
    assert found == ({why} if why else set())


def test_only_a_version_or_an_act_of_a_person_moves_state_and_intakes() -> None:
    changes = [("M", "state/replay.dvc"), ("M", "state/champion.json"), ("A", "data/r-2.dvc"), ("M", "data/r-1.dvc")]
    others = [("M", "state/notes.txt"), ("M", "data/r-1.txt")]
    moved = {"state/replay.dvc", "state/champion.json", "data/r-1.dvc"}
    for added, expected in (
        ("events/20261120T020000000000Z-run-r-2.json", moved),
        ("events/20261120T020000000000Z-withdrawal-x.json", set()),
        ("versions/v0002.json", set()),
        ("reports/gate.json", moved),
    ):
        commit = Commit("2" * 40, "1" * 40, (("A", added), *changes, *others))
        book = Evidence(None, None, [commit], {}, {})  # type: ignore[arg-type]
        assert {finding.where for finding in check_history(book)} == expected, added
    first = Evidence(None, None, [Commit("1" * 40, "", tuple(changes))], {}, {})  # type: ignore[arg-type]
    assert not list(check_history(first))


@pytest.mark.parametrize(
    ("intake", "held", "why"),
    [
        ({"md5": MD5, "assets": 0}, None, None),
        ({"md5": MD5, "assets": 0}, MD5, "no event says that this run took anything in"),
        (None, MD5, "no event says that this run took anything in"),
        ({"md5": MD5, "assets": 0, "quarantined": 1}, None, "the run's event says that it took something in"),
        ({"md5": MD5, "assets": 1}, None, "the run's event says that it took something in"),
        ({"md5": MD5, "assets": 1}, "1" * 32, "it is not what the run's event says was taken in"),
        ({"md5": MD5, "assets": 1}, MD5, None),
    ],
)
def test_what_a_run_took_in_is_what_its_event_says(intake: Any, held: str | None, why: str | None) -> None:
    ledger = Ledger()
    ledger.apply(event(**{**RUN, "intake": intake}))
    book = book_of({"data/r-1.dvc": dvc_file({"md5": held}, "r-1")} if held else {})
    assert [finding.why for finding in check_intakes(book, ledger, ["r-1"])] == ([why] if why else [])
