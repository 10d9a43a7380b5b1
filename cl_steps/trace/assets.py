"""Where an asset went: asked of the asset index, answered from intakes to descendants."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from cl_steps.documents import Json
from cl_steps.errors import NoUsableData
from cl_steps.repository.line import Line
from cl_steps.trace.datasets import FACTS
from cl_steps.trace.index import ask

ROLES = ("batch", "replay", "evaluation", "reference")


@dataclass(frozen=True)
class Place:
    """A stored folder that holds the asset: its digest, and what it is of which run (an intake) or version."""

    md5: str
    role: str
    of: str


@dataclass(frozen=True)
class Where:
    """Where an asset went; lists of versions are in their order.

    `facts` are its caption and so on, None where nothing of it is kept. `learnt`, `probe` and `held_out` are the
    versions whose batch brought it, by its split; `replayed_by` those that trained on their parent's buffer with it in.
    `replay`, `evaluation` and `reference` are the versions whose state holds it. `teachers` are pairs of a version that
    learnt it, or descends from one that did, and the version that it taught. `descendants` have such a version among
    their parents, and none of their own training on it. `champion` says whether today's champion is one of all these.
    """

    sha256: str
    facts: dict[str, Any] | None
    intakes: tuple[dict[str, Any], ...]
    runs: tuple[dict[str, Any], ...]
    learnt: tuple[str, ...]
    probe: tuple[str, ...]
    held_out: tuple[str, ...]
    replayed_by: tuple[str, ...]
    replay: tuple[str, ...]
    evaluation: tuple[str, ...]
    reference: tuple[str, ...]
    teachers: tuple[tuple[str, str], ...]
    descendants: tuple[str, ...]
    champion: dict[str, Any]
    quarantined: tuple[dict[str, Any], ...]
    withdrawn: dict[str, Any] | None
    places: tuple[Place, ...]
    unread: tuple[str, ...]
    """Datasets that the store no longer holds: nobody can say whether they held it."""

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def where(line: Line, sha256: str) -> Where:
    """Where an asset went.

    Raises:
        NoUsableData: the line never saw it.
        Unavailable, IntegrityError: as `index.ask`.
    """
    return ask(line, partial(find, sha256=sha256))


def find(db: sqlite3.Connection, sha256: str) -> Where:
    """As `where`, in an index that is open already."""
    sha = bytes.fromhex(sha256)
    asset = db.execute(
        f"SELECT assets.id, text, {', '.join(FACTS)} FROM assets JOIN kinds ON kinds.id = kind WHERE sha = ?",  # noqa: S608
        (sha,),
    ).fetchone()
    rows = db.execute("SELECT run, file, code, reason FROM quarantine WHERE sha = ? ORDER BY run, file", (sha,))
    quarantined = tuple(dict(zip(("run", "file", "code", "reason"), row, strict=True)) for row in rows)
    withdrawn = _withdrawal(db, sha)
    if asset is None and not quarantined and withdrawn is None:
        raise NoUsableData(f"the line never saw the asset {sha256}: `--near` looks for copies of it")
    facts = {"text": asset[1], **dict(zip(FACTS, asset[2:], strict=True))} if asset else None
    if facts:
        facts["sealed"] = bool(facts["sealed"])
    split = facts["split"] if facts else (withdrawn or {}).get("split")
    story = _Story(db, asset[0] if asset else 0, split or "", withdrawn)
    return Where(
        sha256=sha256,
        facts=facts,
        quarantined=quarantined,
        withdrawn=withdrawn,
        **story.told(),
    )


def _withdrawal(db: sqlite3.Connection, sha: bytes) -> dict[str, Any] | None:
    """The last event that withdrew an asset, and the first, since which nothing that was made holds it."""
    query = "SELECT id, document FROM acts JOIN tombstones ON act = id WHERE sha = ? ORDER BY id"
    acts = [(row[0], json.loads(row[1])) for row in db.execute(query, (sha,))]
    if not acts:
        return None
    name, event = next(((n, e) for n, e in reversed(acts) if e["erase"]), acts[-1])
    told = {key: event.get(key) for key in ("at", "by", "reason", "source", "erase", "touched")}
    # Of an erased asset only the event still knows with which intake it came, and for what.
    [own] = [asset for asset in event["assets"] if asset["sha256"] == sha.hex()]
    told |= {key: own.get(key) for key in ("intake", "split")}
    return {"event": name, **told, "first": {"event": acts[0][0], "at": acts[0][1]["at"]}}


@dataclass(frozen=True)
class _Version:
    number: int
    parent: int | None
    teacher: int | None
    replays: bool
    run: str | None
    event: str
    batch: str | None
    replay: str | None
    evaluation: str | None
    reference: str | None


class _Story:
    """One asset through all versions; oldest first, since each depends on its parent."""

    def __init__(self, db: sqlite3.Connection, asset: int, split: str, withdrawn: Json | None) -> None:
        columns = "number, parent, teacher, replays, run, event, batch, replay, evaluation, reference"
        self._db, self._split = db, split
        self._gone_from = (withdrawn or {}).get("first") or {"event": "~", "at": "~"}
        self._versions = [_Version(*row) for row in db.execute(f"SELECT {columns} FROM versions ORDER BY number")]  # noqa: S608
        self._gone = [row[0] for row in db.execute("SELECT md5 FROM datasets WHERE gone ORDER BY md5")]
        self._held = _holding(db, asset)
        self._erased_from = None if asset else (withdrawn or {}).get("intake")
        self._learners = {row["run"] for row in self._runs([self._erased_from])} if self._erased_from else set()
        self._sets: dict[str, set[int]] = {role: set() for role in ROLES}
        self._replayed: set[int] = set()
        self._reached: set[int] = set()
        for version in self._versions:
            self._follow(version)

    def _follow(self, version: _Version) -> None:
        """Whether a version's batch and state hold the asset, and whether the asset reached its weights."""
        number, parent = version.number, version.parent
        came = version.batch in self._held or version.run in self._learners
        gone = version.event > str(self._gone_from["event"])
        in_state = {
            "batch": came,
            "replay": version.replay in self._held,
            # Both hold all that ever came, but for what was withdrawn before the version was made.
            "evaluation": not gone and self._inherits("evaluation", version, came and self._split == "evaluation"),
            "reference": not gone and self._inherits("reference", version, came),
        }
        for role, holds in in_state.items():
            if holds:
                self._sets[role].add(number)
        if version.replays and self._split == "train" and parent in self._sets["replay"] and not gone:
            self._replayed.add(number)
        if (came and self._split == "train") or number in self._replayed or parent in self._reached:
            self._reached.add(number)

    def _inherits(self, role: str, version: _Version, came: bool) -> bool:
        if version.parent is None:
            return getattr(version, role) in self._held
        return came or version.parent in self._sets[role]

    def told(self) -> dict[str, Any]:
        """The parts of a `Where` that follow from versions and runs."""
        brought = self._sets["batch"]
        learnt = brought if self._split == "train" else set()
        intakes = list(self._intakes())
        return {
            "intakes": tuple(intakes),
            "runs": tuple(self._runs([intake["run"] for intake in intakes] or [self._erased_from])),
            "learnt": _names(learnt),
            "probe": _names(brought if self._split == "probe" else ()),
            "held_out": _names(brought if self._split == "evaluation" else ()),
            "replayed_by": _names(self._replayed),
            **{role: _names(self._sets[role]) for role in ROLES[1:]},
            "teachers": tuple((f"v{v.teacher}", f"v{v.number}") for v in self._versions if v.teacher in self._reached),
            "descendants": _names(self._reached - learnt - self._replayed),
            "champion": self._champion(learnt),
            "places": tuple(self._places(intakes)),
            "unread": tuple(self._gone),
        }

    def _intakes(self) -> Iterator[dict[str, Any]]:
        rows = self._db.execute("SELECT run, at, intake, outcome FROM runs WHERE intake IS NOT NULL ORDER BY event")
        for run, at, md5, outcome in rows:
            if md5 in self._held or run == self._erased_from:
                yield {"run": run, "at": at, "outcome": outcome, "md5": md5}

    def _runs(self, intakes: Iterable[str | None]) -> Iterator[dict[str, Any]]:
        """The runs whose batch had one of those intakes in it, while the asset was in that."""
        query = (
            "SELECT DISTINCT runs.run, at, outcome, version, started FROM batches JOIN runs ON runs.run = batches.run "
            "WHERE batches.intake IN (SELECT value FROM json_each(?)) ORDER BY event"
        )
        for run, at, outcome, version, started in self._db.execute(query, (json.dumps(list(intakes)),)):
            if started < str(self._gone_from["at"]):
                yield {"run": run, "at": at, "outcome": outcome, "version": f"v{version}" if version else None}

    def _champion(self, learnt: set[int]) -> dict[str, Any]:
        row = self._db.execute("SELECT value FROM facts WHERE name = 'champion'").fetchone()
        number = int(row[0]) if row and row[0] is not None else 0
        how = "learnt" if number in learnt else "replayed" if number in self._replayed else "descends"
        return {"version": f"v{number}" if number else None, "how": how if number in self._reached else None}

    def _places(self, intakes: Iterable[Json]) -> Iterator[Place]:
        if self._erased_from:
            return
        yield from (Place(intake["md5"], "intake", intake["run"]) for intake in intakes)
        for version in self._versions:
            for role in ROLES:
                md5 = getattr(version, role)
                if md5 and version.number in self._sets[role]:
                    yield Place(md5, role, f"v{version.number}")


def _holding(db: sqlite3.Connection, asset: int) -> set[str]:
    """The digests of the datasets that hold an asset, those with a base after their base."""
    told = dict(db.execute("SELECT dataset, held FROM members WHERE asset = ?", (asset,)))
    if not told:
        return set()
    held: set[int] = set()
    digests: set[str] = set()
    for number, md5, base in db.execute("SELECT id, md5, base FROM datasets ORDER BY id"):
        if told.get(number, base in held):
            held.add(number)
            digests.add(md5)
    return digests


def _names(numbers: Iterable[int]) -> tuple[str, ...]:
    return tuple(f"v{number}" for number in sorted(numbers))
