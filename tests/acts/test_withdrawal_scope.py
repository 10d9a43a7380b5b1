"""What a withdrawal is about, and what it says of everything that ever held it, on a made-up line with a fork."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from cl_steps.acts.withdrawal_scope import BEGINNING, asset_named, own_words, rows_of_line, touched
from cl_steps.config import Ingest
from cl_steps.data.shards import MANIFEST_SCHEMA
from cl_steps.errors import UsageError
from cl_steps.ledger.fold import Intake, Ledger
from cl_steps.ledger.record import Record
from cl_steps.store.pointers import dvc_file
from tests.lasting import MD5, event, whole_record

A, B = "a" * 64, "b" * 64
HELD = "f"
"""Of which the names of replay buffers are made that hold A and B."""


def at(day: int) -> str:
    return f"2026-11-{day:02d}T02:00:00+00:00"


def version(number: int, parent: str | None, run: str | None, buffer: str = "0") -> Record:
    state = {"replay": buffer * 32}
    said = {"version": f"v{number}", "parent": parent, "run": run, "created": at(number), "digests": {"state": state}}
    return Record.from_document(whole_record(said))


RECORDS = [
    version(1, None, None),
    version(2, "v1", "r-1", HELD),
    version(3, "v2", "r-2"),
    version(4, "v1", "r-3"),
    version(5, "v3", "r-4", HELD),
]


class Manifests:
    """The replay buffers that are on the store."""

    def read(self, md5: str, columns: list[str]) -> pa.Table | None:
        assert columns == ["sha256"]
        return None if HELD not in md5 else pa.table({"sha256": [A, B]})


@pytest.fixture
def ledger() -> Ledger:
    found = Ledger()
    for run, outcome, made, members in (
        ("r-0", "rejected", None, ["r-1"]), ("r-1", "promoted", "v2", ["r-1"]), ("r-2", "promoted", "v3", ["r-2"]),
        ("r-3", "promoted", "v4", ["r-3"]), ("r-4", "promoted", "v5", ["r-4"]), ("r-5", "rejected", None, ["r-5"]),
    ):  # fmt: skip
        found.apply(event(kind="run", run=run, outcome=outcome, version=made, batch={"runs": members}))
    return found


def report(ledger: Ledger, *assets: tuple[str, str | None, str]) -> dict[str, Any]:
    named = [{"sha256": sha, "intake": intake, "split": split} for sha, intake, split in assets]
    return touched(RECORDS, ledger, named, Manifests())  # type: ignore[arg-type]


def test_what_was_learnt_is_in_the_version_and_in_all_that_came_from_it(ledger: Ledger) -> None:
    assert report(ledger, (A, "r-1", "train"), (B, "r-1", "train"), ("c" * 64, None, "train")) == {
        "intakes": {"r-1": 2},
        "runs": {"r-0": "rejected"},
        "learnt": {"v2": {"train": 2}},
        "clean": "v1",
        "descends": ["v3", "v5"],
        "replay": ["v2", "v5"],
        "evaluation": [],
        "reference": ["v2", "v3", "v5"],
    }


def test_what_only_evaluated_had_no_say_in_the_weights(ledger: Ledger) -> None:
    found = report(ledger, (A, "r-2", "evaluation"))
    assert (found["learnt"], found["clean"], found["descends"]) == ({"v3": {"evaluation": 1}}, None, ["v5"])
    assert (found["replay"], found["evaluation"], found["reference"]) == ([], ["v3", "v5"], ["v3", "v5"])


def test_what_the_line_began_with_is_in_every_version(ledger: Ledger) -> None:
    found = report(ledger, (A, BEGINNING, "probe"))
    assert (found["learnt"], found["clean"]) == ({"v1": {"probe": 1}}, None)
    assert (found["descends"], found["replay"]) == (["v2", "v3", "v4", "v5"], ["v2", "v5"])


def test_what_was_made_after_the_first_withdrawal_does_not_hold_it(ledger: Ledger) -> None:
    for day in (2, 4):
        ledger.apply(event(kind="withdrawal", at=at(day), assets=[{"sha256": A}], replaced={MD5: {"md5": MD5}}))
    found = report(ledger, (A, "r-1", "train"))
    assert (found["learnt"], found["replay"], found["reference"]) == ({"v2": {"train": 1}}, ["v2"], ["v2"])
    late = report(ledger, (A, "r-2", "train"))
    assert (late["learnt"], late["clean"], late["reference"]) == ({}, None, [])


def row(sha256: str, run: str, text: str = "a hat", source: str = "s") -> dict[str, Any]:
    prints = {"dhash": b"12345678", "thumbnail": bytes(192)}
    return {
        **dict.fromkeys(MANIFEST_SCHEMA.names),
        "sha256": sha256,
        "run": run,
        "text": text,
        "source": source,
        **prints,
    }


def rows_of(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), MANIFEST_SCHEMA)


class Stored:
    """Manifests by their md5."""

    def __init__(self, **tables: pa.Table) -> None:
        self.tables = tables

    def read(self, md5: str, columns: object = None) -> pa.Table | None:
        return self.tables.get(md5[0])


def test_the_rows_of_a_line_are_what_it_knows_began_with_and_took_in_each_once(ledger: Ledger) -> None:
    digest = {letter: letter * 32 for letter in "abc"}
    ledger.intakes["r-1"] = Intake("r-1", digest["c"], 1)
    began = [Record.from_document(whole_record({"version": "v1", "digests": {"state": {"reference": digest["b"]}}}))]
    now = {"state/reference.dvc": dvc_file({"md5": digest["a"]}, "reference")}
    main = SimpleNamespace(records=lambda: began, read=now.get)
    known, first, taken = (rows_of(row(name * 64, "r")) for name in "abc")
    stored = Stored(a=known, b=pa.concat_tables([first, known]), c=taken)

    def names(main: Any) -> list[str]:
        return [name[0] for name in rows_of_line(main, ledger, stored)["sha256"].to_pylist()]  # type: ignore[arg-type]

    assert names(main) == ["a", "b", "c"]
    stored.tables["b"] = first
    assert names(SimpleNamespace(records=lambda: began, read=lambda _: None)) == ["b", "c"]


def test_an_asset_is_known_by_its_row_or_its_tombstone(ledger: Ledger) -> None:
    ledger.intakes["r-1"] = Intake("r-1", MD5, 1)
    rows, limits = rows_of(row(A, "r-1"), row(B, "r-0")), Ingest()
    assert asset_named(A.upper(), ledger, rows, limits)["intake"] == "r-1"
    assert asset_named(B, ledger, rows, limits)["intake"] == BEGINNING
    ledger.tombstones["c" * 64] = {"sha256": "c" * 64, "dhash": "0"}
    assert asset_named("c" * 64, ledger, rows, limits) == ledger.tombstones["c" * 64]
    with pytest.raises(UsageError, match="never took in an image of this SHA-256"):
        asset_named("d" * 64, ledger, rows, limits)
    with pytest.raises(UsageError, match="neither an image file nor a SHA-256"):
        asset_named("a hat", ledger, rows, limits)


def test_own_words_are_captions_that_no_other_asset_has() -> None:
    rows = rows_of(row(A, "r", "a hat"), row(B, "r", "a red hat"), row("c" * 64, "r", "a hat"), row("d" * 64, "r", ""))
    assert own_words(rows, {A, B, "d" * 64}) == {"a red hat"}
