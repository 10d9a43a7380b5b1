"""Which version came from which, after a rollback too."""

from __future__ import annotations

import pytest

from cl_steps.errors import UsageError
from cl_steps.ledger.ancestors import chain, nearest_first, offspring, walk
from cl_steps.ledger.record import Record
from tests.lasting import whole_record

PARENTS = {"v1": None, "v2": "v1", "v3": "v2", "v4": "v1", "v5": "v4", "v6": "v5"}
RECORDS = [Record.from_document(whole_record({"version": name, "parent": of})) for name, of in PARENTS.items()]


def test_a_version_came_from_its_parents_alone() -> None:
    assert nearest_first(RECORDS, "v6") == ["v6", "v5", "v4", "v1"]
    assert chain(RECORDS, "v6") == ["v1", "v4", "v5", "v6"]
    with pytest.raises(UsageError, match="no version 'v7'"):
        chain(RECORDS, "v7")


def test_a_walk_ends_where_parents_are_not_known_and_where_they_go_round() -> None:
    assert list(walk({"v3": "v2", "v2": "v1"}, "v3")) == ["v3", "v2"]
    assert list(walk({"v3": "v2", "v2": "v3"}, "v3")) == ["v3", "v2"]
    assert list(walk({}, "v3")) == []


def test_offspring_are_what_came_from_them_and_not_they_themselves() -> None:
    assert offspring(RECORDS, ["v4"]) == ["v5", "v6"]
    assert offspring(RECORDS, ["v2", "v5"]) == ["v3", "v6"]
    assert offspring(RECORDS, ["v4", "v5"]) == ["v6"]
    assert offspring(RECORDS, ["v6"]) == []
