"""What a verification says of main's files alone: made up here, without a repository."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cl_steps.documents import json_text
from cl_steps.ledger.fold import Ledger
from cl_steps.ledger.record import Record
from cl_steps.repository.git import git, text
from cl_steps.repository.history import Commit
from cl_steps.store.digests import Digests
from cl_steps.store.pointers import dvc_file
from cl_steps.verify import append_only
from cl_steps.verify.append_only import check_history, check_intakes, check_versions
from cl_steps.verify.authenticity import Doubt
from cl_steps.verify.beginnings import check_links
from cl_steps.verify.evidence import Evidence
from cl_steps.verify.findings import Finding, Verification
from cl_steps.verify.judged import check_judges
from cl_steps.verify.signers import read_events
from cl_steps.verify.stored import Walk, check_files, check_quarantine
from tests.lasting import AT, COMMIT, MD5, event, whole_event, whole_record

EARLIER = "2026-11-19T02:00:00+00:00"
RUN = whole_event({"kind": "run", "run": "r-1", "outcome": "no_update"})


def book_of(files: Mapping[str, Any]) -> Evidence:
    """Main as it is read, each file added by a commit of its own."""
    contents = {path: said if isinstance(said, bytes) else json_text(said).encode() for path, said in files.items()}
    commits = [Commit(f"{place:040d}", "", (("A", path),)) for place, path in enumerate(contents)]
    return Evidence(None, None, commits, contents, {})  # type: ignore[arg-type]


def record(version: str, parent: str | None = None, **said: Any) -> dict[str, Any]:
    return whole_record({"version": version, "parent": parent, **said})


def whys(findings: Any) -> set[tuple[str, str]]:
    return {(finding.where, finding.why) for finding in findings}


def test_a_record_is_the_version_that_its_file_is_named_after() -> None:
    book = book_of(
        {
            "versions/v0001.json": record("v1"),
            "versions/v0002.json": record("v3", "v1"),
            "versions/v0003.json": {"schema": 1},
            "versions/v0004.json": b"{",
            "versions/v0004.sig": b"",
        }
    )
    faults = [version.fault for version in book.versions.values()]
    assert faults[0] is None
    assert faults[1] == "it says that it is v3"
    assert faults[2] is not None
    assert faults[2].endswith("Field required")
    assert faults[3] == "it is no JSON"
    assert [version.record is None for version in book.versions.values()] == [False, True, True, True]


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


def test_links_and_submodules_of_main_are_named(tmp_path: Path) -> None:
    git(None, "init", "-q", "-b", "main", str(tmp_path))
    (tmp_path / "plain").write_text("120000", encoding="utf-8")
    (tmp_path / "link").symlink_to("/etc/passwd")
    git(tmp_path, "add", "--all")
    git(tmp_path, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},module")
    tree = text(tmp_path, "write-tree")
    main = SimpleNamespace(folder=tmp_path, tip=tree)
    found = check_links(Evidence(main, None, [], {}, {}))  # type: ignore[arg-type]
    assert [finding.where for finding in found] == ["link", "module"]


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


FAULT, NOTE = Finding("missing", "v2 base", "gone"), Finding("missing_tag", "v1 tag", "soon", fault=False)


def test_a_verification_says_what_it_looked_at_and_faults_last() -> None:
    found = Verification(["v1", "v2"], [FAULT, NOTE], 3, 70, signed=False)
    assert found.text().splitlines() == [
        "note: missing_tag: v1 tag: soon",
        "missing: v2 base: gone",
        "v1 to v2: 3 objects, 70 bytes read; signatures not checked: there are no trusted keys (--keys); 1 fault",
    ]
    assert found.document()["signatures"] == "not checked: there are no trusted keys"
    assert found.document()["counts"] == {"objects": 3, "bytes": 70, "faults": 1}
    many = Verification(["v2"], [FAULT] * 5, 3, 70, signed=True)
    assert many.sentence().startswith("5 faults: missing: v2 base; missing: v2 base; missing: v2 base and 2 more; see")
    assert (
        Verification(["v2"], [NOTE], 3, 70, signed=True)
        .text()
        .endswith("v2: 3 objects, 70 bytes read; signatures checked; all as it should be")
    )
