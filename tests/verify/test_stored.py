"""What is said of files and quarantines that the store does or does not have."""

from __future__ import annotations

import json
from collections.abc import Iterable

from cl_steps.ledger.fold import Ledger
from cl_steps.ledger.record import Record
from cl_steps.store.digests import Digests
from cl_steps.verify.stored import Root, Walk, check_files, check_quarantine, walk
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


GOOD, GONE, CHANGED, ERASED, ODD, OTHER = (digit * 32 for digit in "123456")
FOLDER, NONE, LIST = f"{'a' * 32}.dir", f"{'b' * 32}.dir", f"{'c' * 32}.dir"


class Held:
    """A store that holds some of what is asked for."""

    def __init__(self) -> None:
        members = {"x": GOOD, "y": GONE, "z": CHANGED, "old": ERASED}
        listing = json.dumps([{"md5": md5, "relpath": path} for path, md5 in members.items()]).encode()
        self.held = {
            FOLDER: Digests("a" * 32, "", 9, listing),
            LIST: Digests("c" * 32, "", 1, b"{"),
            GOOD: Digests(GOOD, "", 5),
            CHANGED: Digests(OTHER, "", 7),
        }

    def digests(self, names: Iterable[str], keep: object) -> dict[str, Digests | None]:
        return {name: self.held.get(name) for name in names}


def test_each_object_is_named_once_where_it_belongs_by_what_is_wrong_with_it() -> None:
    ledger = Ledger(erased={ERASED: "e-1"}, replaced={ODD: {"md5": GONE}})
    roots = [Root("v1 base", FOLDER), Root("v2 base", FOLDER), Root("v2 adapter", NONE), Root("data/r-1", LIST)]
    read = walk(Held(), [*roots, Root("v2 odd", ODD)], ledger)  # type: ignore[arg-type]
    assert read.num_bytes == 9 + 1 + 5 + 7
    assert {(finding.kind, finding.where, finding.fault) for finding in read.findings} == {
        ("missing", "v1 base/y", True),
        ("corrupt", "v1 base/z", True),
        ("erased", "v1 base/old", False),
        ("missing", "v2 adapter", True),
        ("corrupt", "data/r-1", True),
        ("missing", "v2 odd", True),
    }
    assert next(f.why for f in read.findings if f.where == "v1 base/old") == (
        f"object {ERASED} was erased by e-1 (as v2 base/old too)"
    )
