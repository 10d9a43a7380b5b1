"""What is said of files and quarantines that the store does or does not have."""

from __future__ import annotations

from cl_steps.ledger.record import Record
from cl_steps.store.digests import Digests
from cl_steps.verify.stored import Walk, check_files, check_quarantine
from tests.lasting import MD5
from tests.verify.books import record, whys


def test_files_of_a_folder_that_is_not_there_are_not_named_one_by_one() -> None:
    files = {"adapter/x": "0" * 64, "base/y": "0" * 64}
    made = Record.from_document(record("v2", "v1", schema=2, files=files))
    assert not list(check_files(Walk({}, {}), "v2", made))
    held = {"a": Digests("a", "0" * 64, 1), "b": Digests("b", "1" * 64, 1)}
    both = Walk(held, {MD5: {"x": "a", "y": "b"}})
    assert whys(check_files(both, "v2", made)) == {
        ("v2 adapter/y", "record and store do not both name this file"),
        ("v2 base/x", "record and store do not both name this file"),
        ("v2 base/y", "its SHA-256 is not the record's"),
    }


def test_a_quarantine_is_counted_where_it_can_be_read() -> None:
    other = {"md5": "1" * 32}
    listing = {"x.dir": {"quarantine.jsonl": "q", "shard": "s"}, "y.dir": {"shard": "s"}}
    damaged = Walk({"q": None}, listing)
    assert not list(check_quarantine(damaged, "r-1", "x.dir", 3)), "that it is missing is said elsewhere"
    assert [finding.where for finding in check_quarantine(damaged, "r-1", "y.dir", 3)] == ["data/r-1/quarantine.jsonl"]
    assert not list(check_quarantine(damaged, "r-1", "y.dir", 0))
    assert not list(check_quarantine(damaged, "r-1", other["md5"], 3))
