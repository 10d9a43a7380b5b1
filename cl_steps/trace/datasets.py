"""Reads datasets into the asset index: which assets each holds, and the facts of those that are new."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from cl_steps.data.manifests import KNOWN, MANIFEST, Manifests
from cl_steps.progress import progress

FACTS = ("slice", "split", "sealed", "source", "licence", "consent")
"""Of a manifest's columns: what many assets have in common."""


@dataclass
class Datasets:
    """The datasets of an index that is being filled."""

    db: sqlite3.Connection
    manifests: Manifests
    kinds: dict[tuple[Any, ...], int] = field(default_factory=dict)
    replay: tuple[str, frozenset[str]] = ("", frozenset())
    """The replay buffer that was read last: its digest and its assets."""

    def read_all(self) -> None:
        """Read every dataset that runs and versions name and the index lacks; raises as `Manifests.read`."""
        rows = self.db.execute("SELECT id, slice, split, sealed, source, licence, consent FROM kinds")
        self.kinds = {row[1:]: row[0] for row in rows}
        wanted = [(kind, md5, told) for kind, md5, told in self._wanted() if not self._known(md5)]
        for kind, md5, told in progress(wanted, len(wanted), "asset index: datasets"):
            if not self._known(md5):
                {"replay": self._read_replay, "intake": self._read_intake}.get(kind, self._read_whole)(md5, told)

    def _wanted(self) -> Iterator[tuple[str, str, str]]:
        """(kind, md5, what it is told by): intakes first, so that assets have the facts that they came with."""
        runs = self.db.execute("SELECT intake, run FROM runs WHERE intake IS NOT NULL ORDER BY event").fetchall()
        versions = self.db.execute(
            "SELECT mine.batch, mine.replay, mine.evaluation, mine.reference, before.replay, mine.parent FROM versions "
            "AS mine LEFT JOIN versions AS before ON before.number = mine.parent ORDER BY mine.number"
        ).fetchall()
        yield from (("intake", md5, run) for md5, run in runs)
        for batch, replay, evaluation, reference, base, parent in versions:
            first = ((KNOWN, reference), (MANIFEST, evaluation)) if parent is None else ((MANIFEST, batch),)
            yield from (("whole", md5, name) for name, md5 in first if md5)
            if replay:
                yield "replay", replay, base or ""

    def _known(self, md5: str) -> bool:
        return self.db.execute("SELECT 1 FROM datasets WHERE md5 = ?", (md5,)).fetchone() is not None

    def _read_whole(self, md5: str, name: str = MANIFEST) -> None:
        table = self.manifests.read(md5, name)
        dataset = self._add(md5, None, table is None)
        if table is not None:
            self._take_assets(table)
            self._hold(dataset, table["sha256"].to_pylist(), held=True)

    def _read_intake(self, md5: str, run: str) -> None:
        self._read_whole(md5)
        lines = self.manifests.files(md5, ["quarantine.jsonl"]).get("quarantine.jsonl", b"").splitlines()
        rows = [json.loads(line) for line in lines]
        self.db.executemany(
            "INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?, ?)",
            [(bytes.fromhex(r["sha256"]), run, r["file"], r["code"], r["reason"]) for r in rows if r["sha256"]],
        )

    def _read_replay(self, md5: str, base: str) -> None:
        """A replay buffer as what it gained and lost against its parent's; nearly all of it stays each time."""
        before = self._replay_of(base)
        table = None if before is None else self.manifests.read(md5)
        if table is None or before is None:
            self._read_whole(md5)
            return
        self._take_assets(table)
        names = frozenset(table["sha256"].to_pylist())
        dataset = self._add(md5, base, gone=False)
        self._hold(dataset, names - before, held=True)
        self._hold(dataset, before - names, held=False)
        self.replay = (md5, names)

    def _replay_of(self, md5: str) -> frozenset[str] | None:
        """The assets of a buffer that is in the index already; None where they cannot be had."""
        if self.replay[0] == md5:
            return self.replay[1]
        row = self.db.execute("SELECT gone FROM datasets WHERE md5 = ?", (md5,)).fetchone()
        table = self.manifests.read(md5, columns=["sha256"]) if row and not row[0] else None
        return None if table is None else frozenset(table["sha256"].to_pylist())

    def _add(self, md5: str, base: str | None, gone: bool) -> int:
        row = self.db.execute(
            "INSERT INTO datasets (md5, base, gone) VALUES (?, (SELECT id FROM datasets WHERE md5 = ?), ?)",
            (md5, base, gone),
        )
        assert row.lastrowid is not None
        return row.lastrowid

    def _take_assets(self, table: pa.Table) -> None:
        """The facts of assets; those of the first dataset that brings one stay."""
        columns = [table[name].to_pylist() for name in ("sha256", "text", "dhash", "thumbnail", *FACTS)]
        db = self.db
        for sha, text, dhash, thumbnail, *facts in zip(*columns, strict=True):
            row = (bytes.fromhex(sha), self._kind(tuple(facts)), text)
            added = db.execute("INSERT OR IGNORE INTO assets (sha, kind, text) VALUES (?, ?, ?)", row)
            if added.rowcount:
                db.execute("INSERT INTO prints VALUES (?, ?, ?)", (added.lastrowid, dhash, thumbnail))

    def _kind(self, facts: tuple[Any, ...]) -> int:
        if facts not in self.kinds:
            row = self.db.execute(
                "INSERT INTO kinds (slice, split, sealed, source, licence, consent) VALUES (?, ?, ?, ?, ?, ?)", facts
            )
            assert row.lastrowid is not None
            self.kinds[facts] = row.lastrowid
        return self.kinds[facts]

    def _hold(self, dataset: int, names: Iterable[str], *, held: bool) -> None:
        self.db.executemany(
            "INSERT INTO members SELECT id, ?, ? FROM assets WHERE sha = ?",
            ((dataset, held, bytes.fromhex(name)) for name in sorted(names)),
        )
