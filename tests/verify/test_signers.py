"""Which events of main are read, and what is said of the others."""

from __future__ import annotations

from cl_steps.verify.signers import read_events
from tests.lasting import whole_event
from tests.verify.books import RUN, book_of


def test_an_event_is_the_one_that_its_file_is_named_after() -> None:
    named = {**whole_event({"kind": "prune", "runs": {}}), "id": "20261120T020000000000Z-prune-x"}
    files = {
        "events/20261120T020000000000Z-prune-x.json": named,
        "events/20261120T020001000000Z-prune-x.json": named,
        "events/20261120T020002000000Z-run-r-1.json": RUN,
        "events/20261120T020003000000Z-run-r-1.json": {**RUN, "outcome": "well"},
        "events/20261120T020004000000Z-run-r-1.json": b"[",
        "events/20261120T020005000000Z-prune-x.json": {**named, "runs": 1},
    }
    events, findings = read_events(book_of({**files, "events/x.sig": b"", "eventslog/y.json": b""}))
    one, two, three, *bad = files
    assert list(events) == [one, three]
    assert [finding.where for finding in findings] == [two, *bad]
    assert findings[0].why == f"it says that it is {named['id']}"
    assert findings[-1].why.startswith("runs: ")
