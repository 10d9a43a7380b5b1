"""A new base is the one that a person asked for, before it was made."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from cl_steps.errors import IntegrityError
from cl_steps.ledger.fold import Ledger
from cl_steps.verify import rebases
from cl_steps.verify.rebases import asked_for, check_rebases
from tests.lasting import AT, event
from tests.verify.books import book_of, record

OLD, NEW, OTHER = (f"{digit * 32}.dir" for digit in "123")
FILES = {"base/w": "0" * 64}
ASKED = {"kind": "rebase", "run": "r-1", "id": "e-1", "before": OLD, "after": {"md5": NEW, "size": 1, "nfiles": 1}}
SAID = {"event": "e-1", "before": OLD, "after": NEW}
PATH = "events/e-1.json"


def ledger_of(*events: dict[str, Any]) -> Ledger:
    ledger = Ledger()
    for said in events:
        ledger.apply(event(**said, files=FILES))
    return ledger


def made(said: dict[str, str] = SAID, base: str = NEW, **files: str) -> dict[str, Any]:
    return record(
        "v2",
        "v1",
        schema=2,
        run="r-1",
        rebase=said,
        digests={"base": base},
        files={"adapter/x": "1" * 64} | FILES | files,
    )


@pytest.mark.parametrize(
    ("version", "events", "why"),
    [
        (made(), [ASKED], None),
        (made(), [], "no act of a person on main vouches for its new base"),
        (made({**SAID, "event": "e-2"}), [ASKED], "no act of a person on main vouches for its new base"),
        (made({**SAID, "before": OTHER}), [ASKED], "a person asked for another base"),
        (made({**SAID, "after": OTHER}), [ASKED], "a person asked for another base"),
        (made(base=OTHER), [ASKED], "its base is not the one that a person asked for"),
        (made(**{"base/more": "0" * 64}), [ASKED], "its base is not the one that a person asked for"),
        (record("v2", "v1"), [], None),
        ({"schema": 1}, [], None),
    ],
)
def test_a_new_base_follows_from_an_act(version: dict[str, Any], events: list[Any], why: str | None) -> None:
    book = book_of({PATH: {}, "versions/v0002.json": version})
    found = check_rebases(book, ledger_of(*events), book.versions.values())
    assert [finding.why for finding in found] == ([why] if why else [])


def test_an_act_that_came_after_the_version_is_none() -> None:
    book = book_of({"versions/v0002.json": made(), PATH: {}})
    [finding] = check_rebases(book, ledger_of(ASKED), book.versions.values())
    assert finding.why == "its new base was asked for only after it was made"


ACT, SIGNATURE = {"events/e.json": b"act"}, {"events/e.sig": b"signature"}


def main_of(files: dict[str, bytes], *versions: str) -> Any:
    return SimpleNamespace(ledger=lambda: ledger_of({**ASKED, "id": "e"}), read=files.get, blobs=lambda _: versions)


def test_the_act_itself_is_what_must_be_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr(rebases, "check_act", lambda _, path, content, signature, made: seen.append((path, content)))
    trust: Any = SimpleNamespace(begins=datetime.fromisoformat(AT))
    main = main_of(ACT | SIGNATURE)
    assert asked_for(main, "r-1", trust).id == "e"
    assert seen == [("events/e.json", b"act")]
    with pytest.raises(IntegrityError, match="no act of a person"):
        asked_for(main, "r-2", None)
    with pytest.raises(IntegrityError, match="should be signed"):
        asked_for(main_of(SIGNATURE), "r-1", trust)
    with pytest.raises(IntegrityError, match="should be signed"):
        asked_for(main_of(ACT), "r-1", trust)


def test_an_act_of_before_anybody_signed_needs_no_signature() -> None:
    later: Any = SimpleNamespace(begins=datetime.fromisoformat("2027-01-01T00:00:00+00:00"))
    assert asked_for(main_of(ACT), "r-1", later).id == "e"
    with pytest.raises(IntegrityError, match="should be signed"):
        asked_for(main_of(ACT, "v0001.sig"), "r-1", later)
