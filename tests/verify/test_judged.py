"""What judges signed of a version, and what nobody signed before there were judges."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from cl_steps.verify.authenticity import Doubt
from cl_steps.verify.judged import check_judges
from tests.lasting import AT, COMMIT
from tests.verify.books import EARLIER, book_of, record


def test_records_of_before_there_were_judges_name_none() -> None:
    book = book_of({"versions/v0001.json": record("v1"), "versions/v0002.json": record("v2", "v1", schema=2)})
    assert not list(check_judges(object(), list(book.versions.values())))  # type: ignore[arg-type]
    assert not list(check_judges(None, list(book.versions.values())))


class Judges:
    """Those whose findings count since `AT`, and who doubt what they are shown."""

    judges_since = datetime.fromisoformat(AT)

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def statement(self, *_: object) -> None:
        raise Doubt(self.kind, "so it is")


@pytest.mark.parametrize(
    ("kind", "created", "judged", "found"),
    [
        ("untrusted", EARLIER, {"gate": "{}", "evaluate": "{}"}, ("unsigned", False)),
        ("bad_signature", EARLIER, {"gate": "{}", "evaluate": "{}"}, ("bad_signature", True)),
        ("bad_signature", EARLIER, {}, ("unsigned", False)),
        ("untrusted", AT, {"gate": "{}", "evaluate": "{}"}, ("untrusted", True)),
        ("bad_signature", AT, {}, ("bad_signature", True)),
    ],
)
def test_what_was_found_before_there_were_judges_may_be_signed_by_nobody_and_never_changed(
    kind: str, created: str, judged: dict[str, str], found: tuple[str, bool]
) -> None:
    third = {"schema": 3, "begun": {"commit": COMMIT, "main": COMMIT}, "custody": "separate"}
    book = book_of({"versions/v0002.json": record("v2", "v1", **third, created=created, judged=judged)})
    findings = list(check_judges(Judges(kind), list(book.versions.values())))  # type: ignore[arg-type]
    assert [(finding.where, finding.kind, finding.fault) for finding in findings] == [
        (f"v2 {step}", *found) for step in ("evaluate", "gate")
    ]
