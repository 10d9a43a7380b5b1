"""What main's records and events, and the manifests that they name, put into the asset index.

    assets    an asset and its caption; `kinds` the other facts, which many assets share; `prints` its fingerprints
    datasets  a stored folder; with a `base` its members are those of the base but for the rows of its own
    members   that a dataset holds an asset (`held`), or no longer holds what its base held
    versions, runs, batches (intake -> run that learnt from it), quarantine, acts (rollbacks, withdrawals), tombstones

Intakes, batches and replay buffers are read from the store, each once. A version's evaluation set and what it knows
are those of v1, which are read, and the batches after it: both hold all that ever came and are not read every time.
"""

from __future__ import annotations

import json
import re
import sqlite3
from datetime import datetime, timedelta

from cl_steps.data.manifests import reading_store
from cl_steps.ledger.events import Event, Folder, RollbackEvent, RunEvent, WithdrawalEvent, parse_event
from cl_steps.ledger.record import Record, parse_record
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Mainline
from cl_steps.store.pointers import lock_outs
from cl_steps.trace.datasets import Datasets
from cl_steps.trace.versions import learning_of

SCHEMA = 1
TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE files (name TEXT PRIMARY KEY, blob TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE kinds (id INTEGER PRIMARY KEY, slice, split, sealed, source, licence, consent,
                    UNIQUE (slice, split, sealed, source, licence, consent));
CREATE TABLE assets (id INTEGER PRIMARY KEY, sha BLOB NOT NULL UNIQUE, kind INTEGER NOT NULL, text TEXT NOT NULL);
CREATE TABLE prints (asset INTEGER PRIMARY KEY, dhash BLOB NOT NULL, thumbnail BLOB NOT NULL);
CREATE TABLE datasets (id INTEGER PRIMARY KEY, md5 TEXT NOT NULL UNIQUE, base INTEGER, gone INTEGER NOT NULL);
CREATE TABLE members (asset INTEGER, dataset INTEGER, held INTEGER NOT NULL,
                      PRIMARY KEY (asset, dataset)) WITHOUT ROWID;
CREATE TABLE versions (number INTEGER PRIMARY KEY, parent INTEGER, teacher INTEGER, replays INTEGER NOT NULL, run TEXT,
                       created TEXT, event TEXT NOT NULL, adapter TEXT, batch TEXT, replay TEXT, evaluation TEXT,
                       reference TEXT);
CREATE TABLE runs (run TEXT PRIMARY KEY, event TEXT, at TEXT, started TEXT, outcome TEXT, version INTEGER, intake TEXT);
CREATE TABLE batches (intake TEXT, run TEXT, PRIMARY KEY (intake, run)) WITHOUT ROWID;
CREATE TABLE quarantine (sha BLOB, run TEXT, file TEXT, code TEXT, reason TEXT, PRIMARY KEY (sha, run, file, code))
    WITHOUT ROWID;
CREATE TABLE acts (id TEXT PRIMARY KEY, kind TEXT, document TEXT) WITHOUT ROWID;
CREATE TABLE tombstones (sha BLOB, act TEXT, PRIMARY KEY (sha, act)) WITHOUT ROWID;
"""
OURS = re.compile(r"[^.]*\.json")
"""Records and events; signatures and statements of provenance lie beside them."""


class AnotherHistoryError(Exception):
    """The index knows files that main no longer has as they were."""


def fill(db: sqlite3.Connection, line: Line, main: Mainline) -> None:
    """Take in what main has that the index lacks; the caller's transaction keeps it or not.

    Raises:
        AnotherHistoryError: main is not a continuation of what the index saw.
        IntegrityError: an event or a manifest is not what it must be.
        Unavailable: the store cannot be reached.
    """
    _lay_out(db)
    events, records = (_new(db, main, folder) for folder in ("events", "versions"))
    for name, event in events.items():
        _take_event(db, name.removesuffix(".json"), parse_event(name, event))
    versions = [parse_record(f"versions/{name}", content) for name, content in records.items()]
    for record in sorted(versions, key=lambda record: record.number):
        _take_version(db, record)
    with reading_store(line.store, _replaced(db)) as manifests:
        Datasets(db, manifests).read_all()
    _forget_erased(db)
    _note(db, main)


def bare(value: object) -> int | None:
    """The number of a version's name."""
    name = str(value or "")
    return int(name[1:]) if name[:1] == "v" and name[1:].isdecimal() else None


def _lay_out(db: sqlite3.Connection) -> None:
    if not db.execute("PRAGMA user_version").fetchone()[0]:
        for statement in filter(str.strip, TABLES.split(";")):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {SCHEMA}")


def _new(db: sqlite3.Connection, main: Mainline, folder: str) -> dict[str, bytes]:
    """The files of a folder that are new on main, by name and in its order."""
    there = {f"{folder}/{name}": blob for name, blob in main.blobs(folder).items() if OURS.fullmatch(name)}
    known = dict(db.execute("SELECT name, blob FROM files WHERE name LIKE ?", (f"{folder}/%",)).fetchall())
    if not known.items() <= there.items():
        raise AnotherHistoryError(f"main has other files in {folder}/ than it had")
    fresh = {name: blob for name, blob in there.items() if name not in known}
    db.executemany("INSERT INTO files VALUES (?, ?)", fresh.items())
    return dict(zip((n.partition("/")[2] for n in fresh), main.contents(fresh.values()), strict=True))


def _take_event(db: sqlite3.Connection, name: str, event: Event) -> None:
    if isinstance(event, RunEvent):
        _take_run(db, name, event)
    elif isinstance(event, RollbackEvent | WithdrawalEvent):
        db.execute("INSERT INTO acts VALUES (?, ?, ?)", (name, event.kind, json.dumps(event.document())))
    for asset in event.assets if isinstance(event, WithdrawalEvent) else ():
        db.execute("INSERT OR REPLACE INTO tombstones VALUES (?, ?)", (bytes.fromhex(asset["sha256"]), name))


def _take_run(db: sqlite3.Connection, name: str, event: RunEvent) -> None:
    run, intake = event.run, event.intake
    earlier = db.execute("SELECT intake FROM runs WHERE run = ?", (run,)).fetchone()
    # A run that is tried again takes in nothing: what its first event says counts.
    held = intake.md5 if intake and (intake.assets or intake.quarantined) else None
    kept = (earlier[0] if earlier else None) or held
    started = datetime.fromisoformat(event.at) - timedelta(seconds=event.seconds)
    row = (run, name, event.at, started.isoformat(), event.outcome, bare(event.version), kept)
    db.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    db.execute("DELETE FROM batches WHERE run = ?", (run,))
    db.executemany("INSERT OR IGNORE INTO batches VALUES (?, ?)", [(member, run) for member in event.members])


def _take_version(db: sqlite3.Connection, record: Record) -> None:
    batch, state = lock_outs(record.stages).get("tonight/batch") or {}, record.digests.state
    parent, learning = bare(record.parent), learning_of(record)
    teacher = _teacher(db, parent, record.digests.teacher) if learning.taught else None
    promoted = db.execute("SELECT event FROM runs WHERE run = ?", (record.run,)).fetchone()
    stored = (state["adapter"], batch.get("md5"), *(state[n] for n in ("replay", "global_eval", "reference")))
    row = (record.number, parent, teacher, learning.replayed, record.run, record.created)
    db.execute(
        "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*row, promoted[0] if promoted else "", *stored),
    )


def _teacher(db: sqlite3.Connection, parent: int | None, adapter: object) -> int | None:
    """The version whose adapter taught: the parent, unless the digest says another one."""
    found = [row[0] for row in db.execute("SELECT number FROM versions WHERE adapter = ?", (adapter,))]
    return parent if parent in found or not found else int(max(found))


def _replaced(db: sqlite3.Connection) -> dict[str, Folder]:
    acts = (json.loads(row[0]) for row in db.execute("SELECT document FROM acts WHERE kind = 'withdrawal' ORDER BY id"))
    return {old: new for act in acts for old, new in act["replaced"].items()}


def _forget_erased(db: sqlite3.Connection) -> None:
    """Nothing of an erased asset stays but that it was withdrawn."""
    erased = (
        "SELECT DISTINCT assets.id FROM assets JOIN tombstones USING (sha) JOIN acts ON acts.id = tombstones.act "
        "WHERE json_extract(acts.document, '$.erase')"
    )
    gone = db.execute(erased).fetchall()
    db.execute("PRAGMA secure_delete = ON")
    for table, key in (("members", "asset"), ("prints", "asset"), ("assets", "id")):
        db.executemany(f"DELETE FROM {table} WHERE {key} = ?", gone)  # noqa: S608  (names of ours)


def _note(db: sqlite3.Connection, main: Mainline) -> None:
    champion = bare(main.champion().version)
    facts = {"tip": main.tip, "champion": champion, "rmse": main.params().ingest.near_duplicate_rmse}
    db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())
