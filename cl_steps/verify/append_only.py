"""The Git side of a verification: is main's ledger whole, append-only and at one with itself?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from cl_steps.errors import IntegrityError
from cl_steps.ledger.champion import CHAMPION, parse_champion
from cl_steps.ledger.fold import Ledger
from cl_steps.ledger.names import tag_of
from cl_steps.ledger.record import Record
from cl_steps.repository.history import Commit
from cl_steps.verify.consistency import FIXED, disagreements, next_digests, state_digests
from cl_steps.verify.evidence import Evidence, Version
from cl_steps.verify.findings import Finding

LEDGER = ("events/", "versions/")
CHANGED = {"M": "changed", "D": "deleted"}
NO_ACTS = ("run", "answer", "prune", "rebase")
"""Kinds of events that move no state by themselves; a rebase does so with the version that comes of it."""


def check_history(book: Evidence) -> Iterator[Finding]:
    """Nothing in the ledger was ever changed or deleted; state and intakes moved only with a version or an act."""
    for commit in book.commits:
        for status, path in commit.changes:
            if path.startswith(LEDGER) and path.endswith((".json", ".sig")) and status != "A":
                why = f"commit {commit.id[:10]} {CHANGED.get(status, 'changed')} it, and it is for ever"
                yield Finding("rewritten", path, why)
        if commit.before and not _may_move_state(commit):
            for path in _moved(commit):
                why = f"commit {commit.id[:10]} changed it, with neither a version nor an act of a person"
                yield Finding("rewritten", path, why)


def check_numbers(book: Evidence) -> Iterator[Finding]:
    """Versions count from 1 without a gap, and every tag of a version has one."""
    numbers = list(book.versions)
    absent = sorted(set(range(1, max(numbers, default=1) + 1)) - set(numbers))
    yield from (Finding("missing", f"v{number} record", "a later version is there") for number in absent)
    known = {tag_of(number) for number in numbers}
    for tag in sorted(set(book.tags) - known):
        yield Finding("wrong_tag", f"tag {tag}", "main has no such version")


def check_versions(book: Evidence, versions: Iterable[Version]) -> Iterator[Finding]:
    """Each record of the right shape, at one with the state it was committed with, after its parent, and tagged."""
    chosen = list(versions)
    states = book.states(chosen)
    for version in chosen:
        yield from _check_tag(book, version)
        if version.record is None:
            yield Finding("corrupt", f"{version.name} record", version.fault or "")
            continue
        yield from _check_commit(version, version.record, states)
        yield from _check_ancestry(book, version, version.record)


def check_tip(book: Evidence) -> Iterator[Finding]:
    """Main's state is the champion's; withdrawals may have put others in the place of data, but never of the model."""
    try:
        digests = state_digests(_named(book, "state/"))
        version = book.versions[int(parse_champion(book.files.get(CHAMPION, b"")).version[1:])]
    except (ValueError, KeyError, IntegrityError):
        yield Finding("corrupt", "state/", "it names no champion of main, or no bytes")
        return
    if version.record:
        expected = next_digests(version.record)
        for part in FIXED.values():
            if digests.get(part) != expected[part]:
                yield Finding("inconsistent", f"state/{part}.dvc", f"{version.name} is the champion, and has another")


def check_intakes(book: Evidence, ledger: Ledger, runs: Iterable[str]) -> Iterator[Finding]:
    """What `data/` holds of those runs is what their events say, or what stands for it since a withdrawal."""
    for run in runs:
        event = ledger.runs.get(run)
        taken = event.intake if event else None
        path = f"data/{run}.dvc"
        held = book.tracked(path)
        if taken is None or not (taken.assets or taken.quarantined):
            if held is not None or path in book.files:
                yield Finding("inconsistent", path, "no event says that this run took anything in")
        elif held is None:
            yield Finding("missing", path, "the run's event says that it took something in")
        elif held != ledger.standing(taken.md5)["md5"]:
            yield Finding("inconsistent", path, "it is not what the run's event says was taken in")


def _check_tag(book: Evidence, version: Version) -> Iterator[Finding]:
    tagged = book.tags.get(tag_of(version.number))
    if tagged is None:
        yield Finding("missing_tag", f"{version.name} tag", "the next run's close makes it again", fault=False)
    elif tagged != version.commit.id:
        why = f"{tag_of(version.number)} is at {tagged[:10]}, and the version's commit is {version.commit.id[:10]}"
        yield Finding("wrong_tag", f"{version.name} tag", why)


def _check_commit(version: Version, record: Record, states: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    after = states.get(version.commit.id, {})
    for part, md5 in next_digests(record).items():
        if after.get(part) != md5:
            why = f"its commit {version.commit.id[:10]} put other bytes there than its record says"
            yield Finding("inconsistent", f"{version.name} state/{part}.dvc", why)
    if record.parent is None:
        return
    for why in disagreements(record, states.get(version.commit.before, {})):
        yield Finding("inconsistent", f"{version.name} record", why)
    if record.shape > 1 and record.main != version.commit.before:
        why = "it names another commit before its own: main's history was written anew"
        yield Finding("rewritten", f"{version.name} record", why)


def _check_ancestry(book: Evidence, version: Version, record: Record) -> Iterator[Finding]:
    where = f"{version.name} record"
    if record.parent is not None:
        parent = book.versions.get(int(record.parent[1:]))
        if parent is None or parent.number >= version.number:
            yield Finding("missing", where, f"its parent {record.parent} is no version before it")
        elif parent.record and next_digests(parent.record)["adapter"] != record.digests.teacher:
            yield Finding("inconsistent", where, f"its teacher is not the adapter of its parent {record.parent}")
    before = book.versions.get(version.number - 1)
    if before and before.record and _created(before.record) > _created(record):
        yield Finding("inconsistent", where, f"it says that it was made before {before.name}")


def _created(record: Record) -> datetime:
    return datetime.fromisoformat(record.created)


def _named(book: Evidence, folder: str) -> dict[str, bytes]:
    return {path.removeprefix(folder): content for path, content in book.files.items() if path.startswith(folder)}


def _moved(commit: Commit) -> Iterator[str]:
    """What no run changes: the state; and intakes, which runs only add."""
    for status, path in commit.changes:
        is_state = path.startswith("state/") and path.endswith((".dvc", ".json"))
        if is_state or (path.startswith("data/") and path.endswith(".dvc") and status != "A"):
            yield path


def _may_move_state(commit: Commit) -> bool:
    added = [path for status, path in commit.changes if status == "A" and path.startswith(LEDGER)]
    kinds = [path.split("-", 2)[1] for path in added if path.startswith("events/") and path.count("-") > 1]
    return any(path.startswith("versions/") for path in added) or any(kind not in NO_ACTS for kind in kinds)
